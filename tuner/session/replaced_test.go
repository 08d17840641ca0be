package session

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree lists a folder's files with what they hold.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var b []byte
			b, err = os.ReadFile(path)
			name, _ := filepath.Rel(dir, path)
			all = append(all, name+"="+string(b))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		name, text, _ := strings.Cut(f, "=")
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

func folder(dir string) *Folder {
	return At(&Kind{Noun: "training", Results: []string{"best.pth", "history.json", "sheets"}, Keeps: func(name string) bool { return name == "a.pth" },
		State: func(*Folder) State { return State{Text: "a training", Resumable: true} },
		Stands: func(f *Folder) (bool, error) {
			_, err := os.Stat(f.InResume("a.pth"))
			return err == nil, nil
		}}, dir)
}

var old = []string{"best.pth=old", "history.json=old", "notes.txt=mine", "resume/.lock=", "resume/a.pth=old", "resume/mine.txt=mine", "sheets/1.png=old"}

func TestEarlierResultsStayUntilNewOnesStand(t *testing.T) {
	for name, c := range map[string]struct {
		fresh []string
		end   func(*Folder) error
		want  []string
	}{
		"the new stands":        {[]string{"resume/a.pth=new", "history.json=new"}, (*Folder).DropReplaced, []string{"history.json=new", "notes.txt=mine", "resume/.lock=", "resume/a.pth=new", "resume/mine.txt=mine"}},
		"nothing came of it":    {[]string{"resume/run.json=new", "history.json=new", "sheets/2.png=new"}, (*Folder).PutBack, old},
		"killed with new":       {[]string{"resume/a.pth=new"}, (*Folder).recover, []string{"notes.txt=mine", "resume/.lock=", "resume/a.pth=new", "resume/mine.txt=mine"}},
		"killed with nothing":   {nil, (*Folder).recover, old},
		"killed with a history": {[]string{"history.json=new"}, (*Folder).recover, old},
	} {
		dir := t.TempDir()
		write(t, dir, old...)
		f := folder(dir)
		if err := errors.Join(f.recover(), f.setAside()); err != nil {
			t.Fatal(err)
		}
		if own, _ := f.own(); len(own) > 0 || !f.Replaces() {
			t.Errorf("%s: %v is left in place", name, own)
		}
		write(t, dir, c.fresh...)
		if err := c.end(f); err != nil {
			t.Fatal(err)
		}
		if got := tree(t, dir); !slices.Equal(got, c.want) || f.Replaces() {
			t.Errorf("%s:\n%v\nwant\n%v", name, got, c.want)
		}
	}
}

// Whatever was moved when a process was killed, on the way there or back, comes
// back.
func TestKilledOnTheWay(t *testing.T) {
	for _, stage := range []string{"moving", "returning"} {
		for moved := range 5 {
			dir := t.TempDir()
			write(t, dir, old...)
			write(t, dir, "replaced/.stage="+stage)
			for _, name := range []string{"best.pth", "history.json", "resume/a.pth", "sheets/1.png"}[:moved] {
				if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, "replaced", name)), 0o755),
					os.Rename(filepath.Join(dir, name), filepath.Join(dir, "replaced", name))); err != nil {
					t.Fatal(err)
				}
			}
			if err := folder(dir).recover(); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); !slices.Equal(got, old) {
				t.Errorf("%s, %d moved: %v", stage, moved, got)
			}
		}
	}
}

// New work begins in an empty folder, or where it may replace what is there; what
// is not of ours stays, and half-written files do not.
func TestBegin(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, old...)
	write(t, dir, "resume/.a.pth.tmp-1=half")
	f := folder(dir)
	var exists *ExistsError
	if err := f.Begin(false); !errors.As(err, &exists) || err.Error() != dir+" has a training: --resume "+dir+" continues it, --overwrite replaces it, --out DIR puts this one elsewhere" {
		t.Error(err)
	}
	if got := tree(t, dir); len(got) != len(old)+1 {
		t.Errorf("a refusal left %v", got)
	}
	if err := f.Begin(true); err != nil || !f.Replaces() {
		t.Fatal(err)
	}
	want := []string{"notes.txt=mine", "replaced/.stage=kept", "replaced/best.pth=old", "replaced/history.json=old", "replaced/resume/.a.pth.tmp-1=half", "replaced/resume/a.pth=old",
		"replaced/sheets/1.png=old", "resume/.lock=", "resume/mine.txt=mine"}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// A process was killed here: the next one finds the earlier results, and may replace them again.
	if err := f.Begin(true); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, dir); !slices.Equal(got, want) {
		t.Errorf("again: %v, want %v", got, want)
	}
	// Work that goes on in a cluster is not displaced by what it replaces.
	write(t, dir, "resume/run.json={}")
	f.kind.State = func(*Folder) State { return State{Text: "work under way", Resumable: true, GoesOn: true} }
	if err := f.Begin(false); !errors.As(err, &exists) || exists.Text != "work under way" || !f.Replaces() {
		t.Error(err)
	}
}

// What came to nothing is in nobody's way, and goes; what is not of ours stays.
func TestBeginWhereNothingCameOfIt(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "history.json=failed", "notes.txt=mine", "resume/run.json={}", "resume/.lock=", "resume/mine.txt=mine")
	f := folder(dir)
	nothing := false
	f.kind.Nothing = func(*Folder) bool { return nothing }
	if _, exists := errors.AsType[*ExistsError](f.Begin(false)); !exists {
		t.Error("something came of it, and it was not refused")
	}
	nothing = true
	if err := f.Begin(false); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, dir), []string{"notes.txt=mine", "resume/.lock=", "resume/mine.txt=mine"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
