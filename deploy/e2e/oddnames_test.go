package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// A class whose name is as long as a file system takes, files whose names are no
// UTF-8 or hold control characters, a class too small to be held out: training and
// inference go through, and what they write is UTF-8 without control characters.
func TestOddNames(t *testing.T) {
	trainer := torch(t)[1]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	drawn := facades(t, ctx)
	dir := t.TempDir()
	long := strings.Repeat("k", 254)
	for _, part := range []string{"train", "validation"} {
		for class, style := range map[string]string{"gothic": "gothic", long: "colonial", "rare": "modernist"} {
			all, err := filepath.Glob(filepath.Join(drawn, part, style, "*"))
			must(t, err)
			must(t, os.MkdirAll(filepath.Join(dir, part, class), 0o755))
			if class == "rare" && part == "validation" {
				continue
			}
			for i, name := range []string{"a.jpg", "lat\xe4in.jpg", "new\nline.jpg", "e\x1b[31mred.jpg"} {
				must(t, os.Link(all[i], filepath.Join(dir, part, class, name)))
			}
		}
	}
	out := filepath.Join(t.TempDir(), "odd")
	stdout, errs, code := atelier(t, ctx, nil, here(trainer, dir, out, "--model", "vanilla", "--epochs", "1", "--set", "image_size=32")...)
	if code != 0 {
		t.Fatalf("training: exit %d\n%s%s", code, stdout, errs)
	}
	if sheets, _ := filepath.Glob(filepath.Join(out, "image_batches", "*.png")); len(sheets) != 3 {
		t.Errorf("sheets %q", sheets)
	}
	for _, mode := range []string{"evaluate", "explain_misclassifications", "inference", "production"} {
		results := filepath.Join(out, "results")
		stdout, errs, code := atelier(t, ctx, nil, "infer", "--mode", mode, "--checkpoint", filepath.Join(out, "best_model.pth"), "--image-dir", filepath.Join(dir, "validation"),
			"--output-dir", results, "--no-mlflow", "--trainer-bin", trainer)
		if code != 0 || strings.Contains(errs, "skipped") || strings.Contains(errs, "\x1b") {
			t.Errorf("%s: exit %d\n%s%s", mode, code, stdout, errs)
		}
		must(t, filepath.WalkDir(results, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if !utf8.ValidString(path) {
				t.Errorf("%s: wrote %q", mode, path)
			}
			switch filepath.Ext(path) {
			case ".csv", ".json", ".jsonl", ".txt", ".html":
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				if !utf8.Valid(b) || strings.Contains(string(b), "\x1b") {
					t.Errorf("%s: %s holds what is no text", mode, path)
				}
			}
			return nil
		}))
	}
}
