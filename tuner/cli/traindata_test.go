package cli_test

import (
	"bytes"
	"image"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// classFolders copies distinct images of three styles into one folder per class.
func classFolders(t *testing.T, to string, n int) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(facades(t, n))); err != nil {
		t.Fatal(err)
	}
}

// Class folders, a split and the train/ of one are all taken, by train and tune;
// class folders are split once.
func TestTrainTakesAnyFolderOfImages(t *testing.T) {
	job := pretender(t)
	dir := t.TempDir()
	classFolders(t, filepath.Join(dir, "styles"), 12)
	for _, c := range []struct{ data, text string }{
		{"styles", "split styles into styles_split: "},
		{"styles/", "styles is split already: using styles_split"},
		{"styles_split/train", "images of 3 classes"},
		{filepath.Join(dir, "styles"), "styles is split already"},
	} {
		r := talk(t, dir, false, "", nil, "train", "--data", c.data, "--no-mlflow", "--overwrite")
		if !strings.Contains(r.err, c.text) || !strings.Contains(r.err, "enough seen") {
			t.Errorf("%s: %+v", c.data, r)
			continue
		}
		data := job()["data"].(map[string]any)
		for part, path := range map[string]string{"train": "styles_split/train", "validation": "styles_split/validation", "test": "styles_split/test"} {
			if got, _ := data[part].(string); !strings.HasSuffix(got, path) {
				t.Errorf("%s: %s is %q", c.data, part, got)
			}
		}
	}
	if r := talk(t, dir, false, "", nil, "tune", "--data", "styles", "--quick", "--no-mlflow", "--trainer-bin", "nosuch"); !strings.Contains(r.err, "styles is split already") || !strings.Contains(r.err, "no trainer at nosuch") {
		t.Errorf("tune: %+v", r)
	}
	if r := talk(t, dir, false, "", nil, "train", "--data", "stiles", "--no-mlflow"); r.code != 3 || !strings.Contains(r.err, "found here: --data styles (3 classes, 36 images)") {
		t.Errorf("a folder that is not there: %+v", r)
	}
	putImage(t, filepath.Join(dir, "loose/1.png"))
	if r := talk(t, dir, false, "", nil, "train", "--data", "loose", "--no-mlflow"); r.code != 1 || !strings.Contains(r.err, "images in it (1)") {
		t.Errorf("images without class folders: %+v", r)
	}
	putImage(t, filepath.Join(dir, "one/a/1.png"))
	if r := talk(t, dir, false, "", nil, "train", "--data", "one", "--no-mlflow"); r.code != 1 || !strings.Contains(r.err, "a classifier needs two") {
		t.Errorf("one class: %+v", r)
	}
	// The workers of another machine do not see what is split here.
	if r := talk(t, dir, false, "", nil, "--addr", "10.255.255.1:1", "train", "--data", "styles", "--no-mlflow"); r.code != 2 || !strings.Contains(r.err, "atelier data split styles styles_split") {
		t.Errorf("a distant cluster: %+v", r)
	}
}

// Without --data it looks: a person is asked with what was found, a script gets
// the words to type.
func TestTrainFindsImages(t *testing.T) {
	job := pretender(t)
	dir := t.TempDir()
	classFolders(t, filepath.Join(dir, "styles"), 12)
	if r := talk(t, dir, false, "", nil, "train", "--no-mlflow"); r.code != 2 || !strings.Contains(r.err, "found here: --data styles (3 classes, 36 images)") {
		t.Errorf("a script: %+v", r)
	}
	r := talk(t, dir, true, "\nvanilla\nn\n", nil, "train")
	if !strings.Contains(r.err, "Folder of images [styles: 3 classes, 36 images; to be split 70/15/15]: ") || !strings.Contains(r.err, "split styles into styles_split") || !strings.Contains(r.err, "enough seen") {
		t.Errorf("a person: %+v", r)
	}
	job()
	if asked := strings.Count(r.err, "]: "); asked > 4 {
		t.Errorf("%d questions:\n%s", asked, r.err)
	}
	classFolders(t, filepath.Join(dir, "data/raw"), 3)
	for _, c := range []struct{ name, typed, want string }{
		{"by number", "2\n", "split data/raw into data/raw_split"},
		{"by name", "nosuch\ndata/raw\n", "There is no folder nosuch."},
		{"the first", "\n", "styles is split already"},
	} {
		r := talk(t, dir, true, c.typed+"vanilla\nn\n", nil, "train", "--overwrite", "--set", "checkpoints_dir="+strings.ReplaceAll(c.name, " ", ""))
		if !strings.Contains(r.err, "by number or name [styles]: ") || !strings.Contains(r.err, c.want) || !strings.Contains(r.err, "enough seen") {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	if r := talk(t, dir, true, "\n", nil, "tune", "--trainer-bin", "nosuch", "--no-mlflow"); !strings.Contains(r.err, "by number or name [styles]: ") || !strings.Contains(r.err, "no trainer at nosuch") {
		t.Errorf("tune: %+v", r)
	}
	if r := talk(t, t.TempDir(), true, "", nil, "train"); r.code != 2 || !strings.Contains(r.err, "atelier data synth run/facades draws one") {
		t.Errorf("nothing there: %+v", r)
	}
}

// A value that is refused is refused before images are split and copied: the exit
// code for usage means that nothing was done.
func TestValuesAreCheckedBeforeTheSplit(t *testing.T) {
	pretender(t)
	for _, args := range [][]string{{"train", "--model", "resnet81"}, {"train", "--lr", "abc"}, {"train", "--set", "epochs=none"}, {"train", "--set", "epochs"},
		{"train", "--set", "image_size=16"}, {"tune", "--set", "image_size=16"}, {"train", "--set", "no_such_key=1"},
		{"train", "--freeze-features"}, {"tune", "--model", "resnet81"}, {"tune", "--trials", "abc"}} {
		dir := t.TempDir()
		classFolders(t, filepath.Join(dir, "pix"), 4)
		r := talk(t, dir, false, "", nil, append(args, "--data", "pix", "--no-mlflow")...)
		if _, err := os.Stat(filepath.Join(dir, "pix_split")); r.code == 0 || err == nil || strings.Contains(r.err, "split pix") {
			t.Errorf("%q: it split the images: %+v", args, r)
		}
	}
}

// A pipe among the images does not block the command; it is reported.
func TestTrainLeavesOutSpecialFiles(t *testing.T) {
	pretender(t)
	dir := t.TempDir()
	classFolders(t, filepath.Join(dir, "pix"), 4)
	if err := syscall.Mkfifo(filepath.Join(dir, "pix/gothic/pipe.jpg"), 0o644); err != nil {
		t.Skip("no pipes here")
	}
	if r := talk(t, dir, false, "", nil, "train", "--data", "pix", "--no-mlflow"); !strings.Contains(r.err, "left out: 1 special file (") || !strings.Contains(r.err, "enough seen") {
		t.Errorf("%+v", r)
	}
}

// A split of another folder is not written into.
func TestTrainRefusesTheSplitOfAnotherFolder(t *testing.T) {
	pretender(t)
	dir := t.TempDir()
	classFolders(t, filepath.Join(dir, "pb"), 4)
	classFolders(t, filepath.Join(dir, "pa"), 9)
	for i, path := range globbed(t, filepath.Join(dir, "pa/*/*")) {
		write(t, path, gray(t, i))
	}
	if r := talk(t, dir, false, "", nil, "data", "split", "pb", "pa_split"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	before, _ := os.ReadFile(filepath.Join(dir, "pa_split/split.json"))
	n := len(globbed(t, filepath.Join(dir, "pa_split/*/*/*")))
	r := talk(t, dir, false, "", nil, "train", "--data", "pa", "--no-mlflow")
	after, _ := os.ReadFile(filepath.Join(dir, "pa_split/split.json"))
	if r.code == 0 || !strings.Contains(r.err, "pa_split is a split of ") || !strings.Contains(r.err, "atelier data split ") || strings.Contains(r.err, "remove") {
		t.Errorf("%+v", r)
	}
	if string(before) != string(after) || n != len(globbed(t, filepath.Join(dir, "pa_split/*/*/*"))) {
		t.Error("the split was changed")
	}
}

// Images that were relabelled or replaced are reported, also where quiet is asked for.
func TestTrainReportsChangedImages(t *testing.T) {
	pretender(t)
	dir := t.TempDir()
	classFolders(t, filepath.Join(dir, "pix"), 6)
	if r := talk(t, dir, false, "", nil, "train", "--data", "pix", "--no-mlflow"); !strings.Contains(r.err, "split pix into") {
		t.Fatalf("%+v", r)
	}
	gothic := globbed(t, filepath.Join(dir, "pix/gothic/*"))
	if err := os.Rename(gothic[0], filepath.Join(dir, "pix/tudor/moved"+filepath.Ext(gothic[0]))); err != nil {
		t.Fatal(err)
	}
	os.Remove(gothic[1])
	write(t, gothic[1], gray(t, 3))
	r := talk(t, dir, false, "", nil, "train", "--data", "pix", "--no-mlflow", "--quiet", "--overwrite")
	for _, want := range []string{"warning: 1 image moved or relabelled since pix was split", " -> tudor/moved", "warning: 1 image replaced since pix was split", "atelier data split pix OUT"} {
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is not in %+v", want, r)
		}
	}
	if r := talk(t, dir, false, "", nil, "train", "--data", "pix", "--no-mlflow", "--overwrite"); strings.Contains(r.err, "warning: 1 image") || !strings.Contains(r.err, "split already") {
		t.Errorf("once more: %+v", r)
	}
}

func globbed(t *testing.T, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %v %v", pattern, all, err)
	}
	return all
}

// gray is an image unlike those of other numbers.
func gray(t *testing.T, seed int) []byte {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(seed), 4))
	m := image.NewGray(image.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			if x%8 == 0 && y%8 == 0 {
				m.Pix[y*64+x] = byte(r.IntN(256))
			} else {
				m.Pix[y*64+x] = m.Pix[(y-y%8)*64+x-x%8]
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
