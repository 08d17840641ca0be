package cli_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Weights are given by name, as `weights list` has them, or as a file; what a
// training starts from is in its first line, its diagnostics and run.json.
func TestTrainStartsFromWeights(t *testing.T) {
	job := pretender(t)
	dir, cache := imageFolder(t), t.TempDir()
	t.Setenv("ATELIER_CACHE", cache)
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("weights")))
	name := "mine-" + sum[:8]
	write(t, filepath.Join(cache, "weights", name+".pth"), []byte("weights"))
	write(t, filepath.Join(dir, "start.pth"), []byte("weights"))
	served := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	environ := []string{"ATELIER_WEIGHTS_URL=" + server.URL}
	for i, c := range []struct {
		args []string
		path string // of the trainer's job
		text string
	}{
		{nil, "", "resnet18 from scratch on 2 images"},
		{[]string{"--weights", "none"}, "", "resnet18 from scratch on 2 images"},
		{[]string{"--weights", name + ".pth"}, filepath.Join(cache, "weights", name+".pth"), "resnet18 from " + name + " on 2 images"},
		{[]string{"--set", "weights=" + name + ".pth", "--freeze-features"}, filepath.Join(cache, "weights", name+".pth"), "resnet18 from " + name + " on 2 images"},
		{[]string{"--weights", "start.pth"}, filepath.Join(dir, "start.pth"), "resnet18 from start.pth on 2 images"},
	} {
		r := talk(t, dir, false, "", environ, append([]string{"train", "--no-mlflow", "--out", fmt.Sprint(i)}, c.args...)...)
		if !strings.Contains(r.err, c.text) || !strings.Contains(r.err, "enough seen") {
			t.Errorf("%q: %+v", c.args, r)
			continue
		}
		got, _ := job()["weights"].(string)
		if got != "" && !filepath.IsAbs(got) {
			got = filepath.Join(dir, got)
		}
		if got != c.path {
			t.Errorf("%q: the trainer gets %q", c.args, got)
		}
		for file, want := range map[string]string{"training_diagnostics.txt": c.text[:len(c.text)-len(" on 2 images")], "resume/run.json": "from "} {
			b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(i), file))
			if want = strings.Replace(want, "resnet18 ", "resnet18, ", 1); err != nil || !strings.Contains(string(b), want) {
				t.Errorf("%q: no %q in %s, %v\n%s", c.args, want, file, err, b)
			}
		}
	}
	if served != 0 {
		t.Errorf("the server was asked %d times", served)
	}
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--freeze-features"}, 2, "atelier weights pull resnet18"},
		{[]string{"--weights", "resnet50"}, 2, "resnet50 are weights of resnet50, the model is resnet18"},
		{[]string{"--weights", "resnt18"}, 2, `did you mean "resnet18"?`},
		{[]string{"--weights", "models/nosuch.pth"}, 3, "there is no file models/nosuch.pth"},
		{[]string{"--weights", "resnet18"}, 1, "or train without it: --weights none"},
	} {
		if r := talk(t, dir, false, "", environ, append([]string{"train", "--no-mlflow"}, c.args...)...); r.code != c.code || !strings.Contains(r.err, c.text) {
			t.Errorf("%q: want %d and %q: %+v", c.args, c.code, c.text, r)
		}
	}
	if r := talk(t, dir, false, "", environ, "tune", "--no-mlflow", "--set", "freeze_features=true", "--trainer-bin", "nosuch"); r.code != 2 || !strings.Contains(r.err, "atelier weights pull resnet18") {
		t.Errorf("tune: %+v", r)
	}
}

// The question for the start offers published weights where they can be had:
// from the cache, or from a server that answers.
func TestStartOffersWeights(t *testing.T) {
	job := pretender(t)
	dir, cache := imageFolder(t), t.TempDir()
	t.Setenv("ATELIER_CACHE", cache)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodHead {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	environ := []string{"ATELIER_WEIGHTS_URL=" + server.URL}
	r := talk(t, dir, true, "\n\nn\n", environ, "train")
	if !strings.Contains(r.err, "1  published ImageNet weights  224 px  about 11 min, download of 44.6 MiB") || !strings.Contains(r.err, "Start, by number [1]: ") || !strings.Contains(r.err, "pull resnet18-f37072fd.pth") {
		t.Errorf("a server has them: %+v", r)
	}
	server.Close()
	if r = talk(t, dir, true, "\n3\n1\nn\n", environ, "train"); strings.Contains(r.err, "published") || job()["image_size"] != 224.0 {
		t.Errorf("no server: %+v", r)
	}
	write(t, filepath.Join(cache, "weights/resnet18-f37072fd.pth"), []byte("weights"))
	if r = talk(t, dir, true, "\n2\nn\n", environ, "train", "--overwrite"); strings.Contains(r.err, "Start") {
		t.Errorf("asked although a flag is given: %+v", r)
	}
	if r = talk(t, dir, true, "\n3\nn\n", append(environ, "ATELIER_TRAIN_CHECKPOINTS_DIR=other"), "train"); !strings.Contains(r.err, "resnet18         ResNet-18 (recommended), published weights in the cache") ||
		!strings.Contains(r.err, "224 px  about 11 min, in the cache") || !strings.Contains(r.err, "resnet18 from scratch") {
		t.Errorf("the cache has them: %+v", r)
	}
	if got := job()["image_size"]; got != nil && got != 64.0 {
		t.Errorf("image size %v", got)
	}
}
