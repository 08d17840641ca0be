package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/tuner/data/synth"
)

// facades draws distinct images of three styles.
func facades(t *testing.T, n int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "facades")
	d := 0.5
	if _, err := synth.Draw(t.Context(), dir, synth.Options{Styles: []string{"gothic", "tudor", "victorian"}, Train: n, Size: 64, Seed: 5, Difficulty: &d}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "train")
}

func link(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(from, to); err != nil {
		t.Fatal(err)
	}
}

// What `data split` makes of a small class, `train` takes; both say what it
// lacks. From three images on every part has one.
func TestTrainTakesWhatSplitWrites(t *testing.T) {
	job := pretender(t)
	from := facades(t, 12)
	for n := 1; n <= 5; n++ {
		dir := t.TempDir()
		for _, class := range []string{"gothic", "tudor", "victorian"} {
			all, _ := filepath.Glob(filepath.Join(from, class, "*"))
			to := class
			if class == "victorian" {
				all, to = all[:n], "rare"
			}
			for i, p := range all {
				link(t, p, filepath.Join(dir, "few", to, fmt.Sprintf("%d%s", i, filepath.Ext(p))))
			}
		}
		r := run(t, dir, "data", "split", "few", "split", "-o", "csv")
		if r.code != 0 {
			t.Fatalf("%d: %+v", n, r)
		}
		want := map[int]string{1: "rare,1,0,0", 2: "rare,1,1,0", 3: "rare,1,1,1", 4: "rare,2,1,1", 5: "rare,3,1,1"}[n]
		if !strings.Contains(r.out, want) {
			t.Errorf("%d images: want %s in\n%s", n, want, r.out)
		}
		if warned := strings.Contains(r.err, "warning: rare has too few images"); warned != (n < 3) {
			t.Errorf("%d images: %s", n, r.err)
		}
		r = talk(t, dir, false, "", nil, "train", "--data", "split", "--no-mlflow")
		if !strings.Contains(r.err, "enough seen") {
			t.Fatalf("%d images: train refuses what split wrote: %s", n, r.err)
		}
		job()
		if told := strings.Contains(r.err, "no images of rare"); told != (n < 3) {
			t.Errorf("%d images: training says\n%s", n, r.err)
		}
	}
}

// Hidden folders are neither classes nor images, for any tool, and each says
// so; .jfif images are images, for any tool.
func TestOneListingForAllTools(t *testing.T) {
	job := pretender(t)
	from := facades(t, 6)
	dir := t.TempDir()
	for class, style := range map[string]string{"a": "gothic", "b": "tudor"} {
		all, _ := filepath.Glob(filepath.Join(from, style, "*"))
		for i, p := range all {
			ext := map[bool]string{true: ".jfif", false: ".jpg"}[i < 3]
			for _, part := range []string{"train", "validation"} {
				link(t, p, filepath.Join(dir, "images", part, class, fmt.Sprintf("%d%s", i, ext)))
			}
		}
		for _, part := range []string{"train", "validation"} {
			link(t, all[0], filepath.Join(dir, "images", part, class, ".ipynb_checkpoints", "0-checkpoint.jpg"))
		}
	}
	link(t, filepath.Join(dir, "images/train/a/5.jpg"), filepath.Join(dir, "images/train/.ipynb_checkpoints/5.jpg"))
	write(t, filepath.Join(dir, "images/train/a/photo.heic"), []byte("x"))
	for name, x := range map[string]struct {
		args  []string
		wants []string
	}{
		"cleanup": {[]string{"data", "cleanup", "images/train", "--dry-run"}, []string{"12 files, 12 images; 0 to go", "3 hidden or system folders", "1 .heic"}},
		"info":    {[]string{"data", "info", "images/train"}, []string{"image folder of 12 images in 2 classes", "3 hidden or system folders", "1 .heic"}},
		"split":   {[]string{"data", "split", "images/train", "out"}, []string{"12 new images", "3 hidden or system folders", "1 .heic"}},
		"pack":    {[]string{"data", "pack", "images/train", "--cache", "cache"}, []string{"12 images packed", "3 hidden or system folders", "1 .heic"}},
		"train":   {[]string{"train", "--data", "images", "--no-mlflow", "--local"}, []string{"3 hidden or system folders (.ipynb_checkpoints, ", "2 hidden or system folders", "1 .heic", "enough seen"}},
	} {
		r := talk(t, dir, false, "", nil, x.args...)
		for _, want := range x.wants {
			if !strings.Contains(r.err, want) {
				t.Errorf("%s: no %q in exit %d\n%s%s", name, want, r.code, r.out, r.err)
			}
		}
		if strings.Contains(r.out, ".ipynb") {
			t.Errorf("%s: a hidden folder is a class:\n%s", name, r.out)
		}
	}
	job()
}

func TestOneClassIsToldOf(t *testing.T) {
	pretender(t)
	from := facades(t, 2)
	dir := t.TempDir()
	all, _ := filepath.Glob(filepath.Join(from, "gothic", "*"))
	for i, p := range all {
		for _, part := range []string{"train", "validation"} {
			link(t, p, filepath.Join(dir, "one", part, "gothic", fmt.Sprintf("%d.jpg", i)))
		}
	}
	for _, args := range [][]string{{"train", "--data", "one", "--no-mlflow"}, {"data", "info", "one"}, {"data", "pack", "one/train", "--cache", "c"}, {"data", "split", "one/train", "out"}} {
		if r := talk(t, dir, false, "", nil, args...); !strings.Contains(r.err, "one class") {
			t.Errorf("%q: %s", args, r.err)
		}
	}
}

// The command's cleanup says before it moves what and how many, and brings it back.
func TestCleanupAndBack(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "images"), os.DirFS(facades(t, 3))); err != nil {
		t.Fatal(err)
	}
	if r := run(t, dir, "data", "cleanup", "images", "--dry-run"); r.code != 0 || r.out != "" || !strings.Contains(r.err, "9 files, 9 images; 0 to go") {
		t.Errorf("nothing to go: %+v", r)
	}
	write(t, filepath.Join(dir, "images", "gothic", "a\x1b[31mb.jpg"), []byte("not an image"))
	r := run(t, dir, "data", "cleanup", "images")
	if r.code != 0 || !strings.Contains(r.err, "moving 1 file to images_quarantine: 1 not an image\n") || !strings.Contains(r.err, "data cleanup images --undo") || strings.Contains(r.out+r.err, "\x1b") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "data", "cleanup", "images", "--undo", "gothic/nosuch.jpg"); r.code != 3 && r.code != 4 || !strings.Contains(r.err, "not in the quarantine's record") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "data", "cleanup", "images", "--undo"); r.code != 0 || r.out != "gothic/a\\x1b[31mb.jpg\n" || !strings.Contains(r.err, "1 file moved back") {
		t.Errorf("%+v", r)
	}
	write(t, filepath.Join(dir, "run", "c1", "node.json"), []byte("{}"))
	write(t, filepath.Join(dir, "run", "c1", "raft", "log", "1.wal"), []byte("log"))
	if r := run(t, dir, "data", "cleanup", "run"); r.code != 2 || !strings.Contains(r.err, "data folder of a coordinator") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, "run", "c1", "raft", "log", "1.wal")); err != nil {
		t.Error(err)
	}
}
