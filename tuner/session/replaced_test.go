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
		Stands: func(f *Folder) (bool, error) {
			_, err := os.Stat(f.InResume("a.pth"))
			return err == nil, nil
		}}, dir)
}

var old = []string{"best.pth=old", "history.json=old", "notes.txt=mine", "resume/.lock=", "resume/a.pth=old", "sheets/1.png=old"}

func TestEarlierResultsStayUntilNewOnesStand(t *testing.T) {
	for name, c := range map[string]struct {
		fresh []string
		end   func(*Folder) error
		want  []string
	}{
		"the new stands":        {[]string{"resume/a.pth=new", "history.json=new"}, (*Folder).DropReplaced, []string{"history.json=new", "notes.txt=mine", "resume/.lock=", "resume/a.pth=new"}},
		"nothing came of it":    {[]string{"resume/run.json=new", "history.json=new", "sheets/2.png=new"}, (*Folder).PutBack, old},
		"killed with new":       {[]string{"resume/a.pth=new"}, (*Folder).recover, []string{"notes.txt=mine", "resume/.lock=", "resume/a.pth=new"}},
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
