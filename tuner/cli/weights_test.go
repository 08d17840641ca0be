package cli_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/client"
	"atelier/tuner/cli"
)

// TestWeightsPull pulls a real checkpoint from a server of this machine and converts it, there and back.
func TestWeightsPull(t *testing.T) {
	dir := t.TempDir()
	tensor := checkpoint.NewF32([]float32{1, 2, 3}, 3)
	tensor.Name = "fc.bias"
	var pth bytes.Buffer
	if err := checkpoint.Write(&pth, checkpoint.FromStateDict([]checkpoint.Tensor{*tensor})); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("tiny-%.4x.pth", sha256.Sum256(pth.Bytes()))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/models/"+name || r.URL.Path == "/models/resnet18-f37072fd.pth" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(pth.Bytes()))
			return
		}
		http.NotFound(w, r)
	}))
	defer s.Close()
	t.Setenv("ATELIER_CACHE", filepath.Join(dir, "cache"))
	t.Setenv("ATELIER_WEIGHTS_URL", s.URL+"/models")

	cached := filepath.Join(dir, "cache", "weights", name)
	if r := run(t, dir, "weights", "pull", name); r.code != 0 || r.out != cached+"\n" || !strings.Contains(r.err, name+", downloaded, ") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "weights", "pull", name, "--to", "."); r.code != 0 || r.out != filepath.Join(dir, name)+"\n" || !strings.Contains(r.err, "downloaded earlier") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "weights", "pull", name, "--to", "none/a.pth"); r.code != 3 || !strings.Contains(r.err, cached) {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "weights", "pull", name, "-q", "--to", "mine.pth"); r.code != 0 || r.err != "" {
		t.Errorf("%+v", r)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "mine.pth")); err != nil || !bytes.Equal(b, pth.Bytes()) {
		t.Errorf("%d bytes (%v)", len(b), err)
	}
	if r := run(t, dir, "weights", "pull", "resnet18"); r.code != 1 || r.out != "" || !strings.Contains(r.err, "the name promises f37072fd") {
		t.Errorf("wrong hash: %+v", r)
	}
	if r := run(t, dir, "weights", "pull", "resnet34"); r.code != client.ExitNotFound || !strings.Contains(r.err, "404") {
		t.Errorf("not on the server: %+v", r)
	}

	if r := run(t, dir, "weights", "convert", "mine.pth", "mine.safetensors"); r.code != 0 || r.out != filepath.Join(dir, "mine.safetensors")+"\n" || !strings.Contains(r.err, "zip to safetensors: 1 tensors, 3 values") {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "weights", "convert", "mine.safetensors", "back.pth"); r.code != 0 {
		t.Errorf("%+v", r)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "back.pth")); err != nil || !bytes.Equal(b, pth.Bytes()) {
		t.Errorf("there and back: %d bytes (%v)", len(b), err)
	}
	if r := run(t, dir, "weights", "convert", "mine.pth", "mine.pth"); r.code != 1 || !strings.Contains(r.err, "same file") {
		t.Errorf("%+v", r)
	}
}

// TestWeightsConvertMakesAModelFile out of a training checkpoint, and a bare state where that is asked for.
func TestWeightsConvertMakesAModelFile(t *testing.T) {
	dir := t.TempDir()
	state := checkpoint.NewOrderedDict().Set("fc.bias", checkpoint.NewF32([]float32{1, 2, 3}, 3))
	training := checkpoint.NewDict().Set("arch", "resnet18").Set("model_state_dict", state).Set("optimizer_state_dict", checkpoint.NewDict()).
		Set("class_to_idx", checkpoint.NewDict().Set("a", 0).Set("b", 1))
	if _, err := checkpoint.Save(filepath.Join(dir, "epoch.pth"), training); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		flag, out, left string
		arch            string
	}{
		{"--bare=false", "best_model.pth", "left out: optimizer_state_dict\n", "resnet18"},
		{"--bare", "state.pth", "left out: arch, optimizer_state_dict, class_to_idx\n", ""},
	} {
		if r := run(t, dir, "weights", "convert", c.flag, "epoch.pth", c.out); r.code != 0 || !strings.HasSuffix(r.err, c.left) {
			t.Errorf("%+v", r)
		}
		s, err := checkpoint.OpenState(filepath.Join(dir, c.out))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if m, err := s.Model(); err != nil || m.Arch != c.arch || len(s.Tensors) != 1 {
			t.Errorf("%s: %+v, %v", c.out, m, err)
		}
	}
}

// TestWeightsProgress: on a terminal a line is redrawn with bytes, rate and time left, and is gone at the end.
func TestWeightsProgress(t *testing.T) {
	dir := t.TempDir()
	content := bytes.Repeat([]byte("weights!"), 1<<18)
	name := fmt.Sprintf("tiny-%.4x.pth", sha256.Sum256(content))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer s.Close()
	t.Setenv("ATELIER_CACHE", dir)
	var out, errs bytes.Buffer
	clock := time.Unix(0, 0)
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Dir: dir, Live: true, Width: func() int { return 80 },
		Now: func() time.Time { clock = clock.Add(time.Second); return clock }}
	if code := e.Run(t.Context(), []string{"weights", "pull", name, "--from", s.URL}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	lines := strings.Split(errs.String(), "\r\x1b[K")
	if len(lines) < 3 || !strings.Contains(lines[1], " of 2.0 MiB, ") || !strings.Contains(lines[1], "/s") || !strings.Contains(lines[1], "left") || !strings.Contains(lines[len(lines)-1], "downloaded") {
		t.Errorf("%q", lines)
	}
}

// TestWeightsPullWithoutANetwork prints at once which server is asked for what, and how to do without it.
func TestWeightsPullWithoutANetwork(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("ATELIER_CACHE", dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := "http://" + l.Addr().String()
	l.Close() // nobody listens there now
	const file = "resnet18-f37072fd.pth"
	r := run(t, dir, "weights", "pull", "resnet18", "--from", server)
	asks := "asking " + server + " for " + file + " ...\n"
	remedy := "copy " + file + " into " + filepath.Join(dir, "weights") + " from a machine that has it, or give another server: --from URL"
	if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, asks) || !strings.Contains(r.err, "connection refused; "+remedy) {
		t.Errorf("%+v", r)
	}
	if r := run(t, dir, "weights", "pull", "resnet18", "-q", "--from", server); strings.Contains(r.err, "asking") || !strings.Contains(r.err, remedy) {
		t.Errorf("quiet: %+v", r)
	}
}
