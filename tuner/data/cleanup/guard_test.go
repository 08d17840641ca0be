package cleanup_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/tuner/data/cleanup"
	"atelier/tuner/data/synth"
)

// drawn is a folder of two classes with six distinct images each.
func drawn(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "images")
	d := 0.5
	if _, err := synth.Draw(t.Context(), dir, synth.Options{Styles: []string{"gothic", "tudor"}, Train: 6, Size: 64, Seed: 3, Difficulty: &d}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "train")
}

// files below a folder, with what they hold.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.Walk(dir, func(path string, i os.FileInfo, err error) error {
		if err != nil || i.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A folder that is something else is refused by a look already, whatever is forced.
func TestOtherFoldersAreRefused(t *testing.T) {
	for name, x := range map[string]struct {
		put   map[string]string
		force bool
		want  string
	}{
		"a cluster's data":   {put: map[string]string{"c1/node.json": "{}", "c1/lock": "", "c1/raft/log/0001.wal": "x"}, force: true, want: "data folder of a coordinator"},
		"beside pictures":    {put: map[string]string{"gothic/../../c1/lock": ""}, force: true, want: "data folder"},
		"models":             {put: map[string]string{"checkpoints/a/best_model.pth": "x"}, force: true, want: "contains models"},
		"a training":         {put: map[string]string{"gothic/training_history.json": "{}"}, force: true, want: "results of a training"},
		"a repository":       {put: map[string]string{".git/config": "x", "src/main.py": "x"}, force: true, want: "a repository"},
		"a quarantine":       {put: map[string]string{cleanup.Manifest: ""}, force: true, want: "a quarantine"},
		"source code":        {put: map[string]string{"src/main.py": "x", "src/b.c": "y"}, want: "none of its 2 files has an image extension, such as src/b.c, src/main.py"},
		"few pictures":       {put: map[string]string{"a/1.txt": "", "a/2.txt": "", "a/3.txt": "", "a/4.txt": "", "a/5.txt": "", "a/6.txt": "", "a/7.txt": ""}, want: "7 of its 19 files are not images"},
		"texts called jpeg":  {put: map[string]string{"a/1.jpg": "x", "a/2.jpg": "x", "a/3.jpg": "x", "a/4.jpg": "x", "a/5.jpg": "x", "a/6.jpg": "x", "a/7.jpg": "x"}, want: "7 of its 19 files are not images"},
		"no files":           {put: map[string]string{"top.txt": ""}, want: "no files in subfolders"},
		"pictures, one text": {put: map[string]string{"a/1.txt": "x"}},
		"many, but forced":   {put: map[string]string{"a/1.txt": "", "a/2.txt": "", "a/3.txt": "", "a/4.txt": "", "a/5.txt": "", "a/6.txt": "", "a/7.txt": ""}, force: true},
	} {
		dir := filepath.Join(t.TempDir(), "images")
		if !strings.Contains(name, "source") && name != "a cluster's data" && name != "no files" {
			if err := os.CopyFS(dir, os.DirFS(drawn(t))); err != nil {
				t.Fatal(err)
			}
		}
		for path, text := range x.put {
			write(t, filepath.Join(dir, strings.ReplaceAll(path, "gothic/../../", "")), []byte(text))
		}
		r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2, Force: x.force})
		var refused *cleanup.RefusedError
		switch {
		case x.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case x.want == "" && (len(r.Go) != 0 || len(r.LeftOut) != 1 || !strings.Contains(r.LeftOut[0], ".txt")):
			t.Errorf("%s: %d go, left out %q", name, len(r.Go), r.LeftOut)
		case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want) || name != "no files" && !errors.As(err, &refused)):
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
}

// Files with other endings go only where that is asked for, hidden ones never.
func TestOtherFiles(t *testing.T) {
	dir := drawn(t)
	write(t, filepath.Join(dir, "gothic", "main.py"), []byte("print()"))
	write(t, filepath.Join(dir, "gothic", "text.jpg"), []byte("a text"))
	write(t, filepath.Join(dir, "gothic", ".ipynb_checkpoints", "x.jpg"), []byte("hidden"))
	names := func(r *cleanup.Report) (out []string) {
		for _, f := range r.Go {
			out = append(out, f.Path)
		}
		return out
	}
	r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2})
	if err != nil || !slices.Equal(names(r), []string{"gothic/text.jpg"}) {
		t.Errorf("%v, %v", names(r), err)
	}
	r, err = cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2, Others: true})
	if err != nil || !slices.Equal(names(r), []string{"gothic/main.py", "gothic/text.jpg"}) {
		t.Errorf("with other files: %v, %v", names(r), err)
	}
}

// What a cleanup moved comes back byte for byte: all of it, or a part; nothing is
// overwritten; what another folder's cleanup put there stays.
func TestUndo(t *testing.T) {
	dir := drawn(t)
	for i := range 3 {
		write(t, filepath.Join(dir, "gothic", fmt.Sprintf("broken%d.jpg", i)), []byte("not an image"))
	}
	write(t, filepath.Join(dir, "tudor", "x.jpg"), []byte("not an image"))
	before := files(t, dir)
	quarantine := dir + "_quarantine"
	now := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	clean := func(dir string) {
		t.Helper()
		r, err := cleanup.Look(t.Context(), dir, cleanup.Options{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Move(t.Context(), quarantine, now); err != nil || n != len(r.Go) || n == 0 {
			t.Fatalf("%d moved: %v", n, err)
		}
	}
	undo := func(only ...string) *cleanup.Undone {
		t.Helper()
		u, err := cleanup.Undo(t.Context(), dir, quarantine, only, now)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	clean(dir)
	if u := undo("gothic/broken1.jpg", "tudor", "gothic/never.jpg"); !slices.Equal(u.Back, []string{"gothic/broken1.jpg", "tudor/x.jpg"}) || !slices.Equal(u.Unknown, []string{"gothic/never.jpg"}) {
		t.Errorf("a part: %+v", u)
	}
	if u := undo(); !slices.Equal(u.Back, []string{"gothic/broken0.jpg", "gothic/broken2.jpg"}) {
		t.Errorf("the rest: %+v", u)
	}
	if got := files(t, dir); len(got) != len(before) {
		t.Errorf("%d files, before the cleanup %d", len(got), len(before))
	} else {
		for name, b := range before {
			if got[name] != b {
				t.Errorf("%s is another", name)
			}
		}
	}
	// A second time: cleaned again, a crash within a line, the place taken, and
	// another folder's cleanup in the same quarantine.
	clean(dir)
	f, err := os.OpenFile(filepath.Join(quarantine, cleanup.Manifest), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"path":"goth`)
	f.Close()
	other := filepath.Join(t.TempDir(), "other")
	if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(other, "gothic", "theirs.jpg"), []byte("not an image"))
	clean(other)
	write(t, filepath.Join(dir, "gothic", "broken0.jpg"), []byte("new"))
	if u := undo(); !slices.Equal(u.Taken, []string{"gothic/broken0.jpg"}) || len(u.Back) != 3 {
		t.Errorf("the second time: %+v", u)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "gothic", "broken0.jpg")); err != nil || string(b) != "new" {
		t.Errorf("overwritten: %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "gothic", "theirs.jpg")); err == nil {
		t.Error("another folder's file came")
	}
}

func FuzzUndo(f *testing.F) {
	f.Add([]byte(`{"path":"a/1.jpg","to":"a/1.jpg"}` + "\n" + `{"path":"../x","to":"a/1.jpg"}`))
	f.Add([]byte(`{"path":"a","to":"/etc/passwd"`))
	f.Fuzz(func(t *testing.T, record []byte) {
		root := t.TempDir()
		outside := filepath.Join(root, "outside.jpg")
		write(t, outside, []byte("x"))
		write(t, filepath.Join(root, "q", "a", "1.jpg"), []byte("y"))
		write(t, filepath.Join(root, "q", cleanup.Manifest), record)
		if _, err := cleanup.Undo(t.Context(), filepath.Join(root, "images"), filepath.Join(root, "q"), nil, time.Unix(0, 0)); err != nil {
			return
		}
		if b, err := os.ReadFile(outside); err != nil || string(b) != "x" {
			t.Fatalf("a record reached out of the folders: %q", record)
		}
		if all, _ := filepath.Glob(filepath.Join(root, "*")); len(all) > 3 {
			t.Fatalf("a record wrote beside the folders: %q", all)
		}
	})
}
