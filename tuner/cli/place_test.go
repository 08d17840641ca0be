package cli_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"image"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
)

// A file of a person's is not replaced by what a command writes unless it is told
// to; what an earlier run of it wrote, by its name or content, is, and this is said.
func TestFilesThatAreThere(t *testing.T) {
	start(t)
	mine := []byte("mine")
	dir := t.TempDir()
	var pth bytes.Buffer
	tensor := checkpoint.NewF32([]float32{1, 2, 3}, 3)
	tensor.Name = "fc.bias"
	if err := checkpoint.Write(&pth, checkpoint.FromStateDict([]checkpoint.Tensor{*tensor})); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "in.pth"), pth.Bytes())
	name := fmt.Sprintf("tiny-%.4x.pth", sha256.Sum256(pth.Bytes()))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(pth.Bytes()))
	}))
	defer s.Close()
	t.Setenv("ATELIER_CACHE", t.TempDir())
	t.Setenv("ATELIER_WEIGHTS_URL", s.URL)
	for _, class := range []string{"a", "b"} {
		var b bytes.Buffer
		if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8))); err != nil {
			t.Fatal(err)
		}
		os.MkdirAll(filepath.Join(dir, "pics", class), 0o755)
		write(t, filepath.Join(dir, "pics", class, "1.png"), b.Bytes())
	}
	for _, x := range []struct {
		args []string
		file string // of the name that args gives, or the command chooses
		own  bool   // chosen by the command
	}{
		{[]string{"checkpoint", "pull", "s-aaaaaaaa", "--to", "got.pth"}, "got.pth", false},
		{[]string{"checkpoint", "pull", "s-aaaaaaaa"}, "s-aaaaaaaa-7-e2.pth", true},
		{[]string{"weights", "pull", name, "--to", "weights.pth"}, "weights.pth", false},
		{[]string{"weights", "pull", name, "--to", "."}, name, true},
		{[]string{"weights", "convert", "in.pth", "out.pth"}, "out.pth", false},
		{[]string{"data", "info", "pics", "--sheet", "sheet.png"}, "sheet.png", false},
		{[]string{"cluster", "snapshot", "b.snap"}, "b.snap", false},
	} {
		at := filepath.Join(dir, x.file)
		write(t, at, mine)
		r := run(t, dir, x.args...)
		b, _ := os.ReadFile(at)
		if x.own {
			if r.code != 0 || bytes.Equal(b, mine) || !strings.Contains(r.err, "replaced "+x.file) {
				t.Errorf("%v: %+v", x.args, r)
			}
			continue
		}
		if r.code != 2 || !bytes.Equal(b, mine) || !strings.Contains(r.err, x.file+" is there already") || !strings.Contains(r.err, "--overwrite") {
			t.Errorf("%v: %q, %+v", x.args, b, r)
		}
		told := append(append([]string{}, x.args...), "--overwrite")
		r = run(t, dir, told...)
		if b, _ := os.ReadFile(at); r.code != 0 || bytes.Equal(b, mine) || !strings.Contains(r.err, "replaced "+x.file) {
			t.Errorf("%v: %+v", told, r)
		}
	}
	for _, again := range [][]string{{"checkpoint", "pull", "s-aaaaaaaa", "--to", "got.pth"}, {"weights", "pull", name, "--to", "weights.pth"}, {"cluster", "snapshot", "b.snap"}} {
		if r := run(t, dir, again...); r.code != 0 {
			t.Errorf("what the command wrote itself: %v: %+v", again, r)
		}
	}
	if r := run(t, dir, "checkpoint", "pull", "s-aaaaaaaa", "--to", "/dev/null", "--overwrite"); r.code != 2 || !strings.Contains(r.err, "not a regular file") {
		t.Errorf("a device: %+v", r)
	}
}
