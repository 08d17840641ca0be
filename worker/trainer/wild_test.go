//go:build libtorch

package main_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
)

// A model in another tool's clothes is evaluated as itself, and what a file
// does not say is named.
func TestFilesOfOtherToolsAreTaken(t *testing.T) {
	base := imageFolder(t, 4, 4)
	good := of(finish(t, newJob(t, base, map[string]any{"model": "mobilenet_v3_small", "epochs": 1})), trainerproto.EventCheckpoint)[0].Path
	open := func() (*checkpoint.State, *checkpoint.Dict) {
		s, err := checkpoint.OpenState(good)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s, s.Root.(*checkpoint.Dict)
	}
	save := func(root checkpoint.Value) string {
		path := filepath.Join(t.TempDir(), "m.pth")
		if _, err := checkpoint.Save(path, root); err != nil {
			t.Fatal(err)
		}
		return path
	}
	evaluate := func(path string) (out, logs string, err error) {
		var stderr strings.Builder
		cmd := exec.Command(trainer, "evaluate", "--checkpoint", path, "--data", filepath.Join(base, "validation"), "--cache", filepath.Join(base, "cache"))
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		return string(b), stderr.String(), err
	}
	want, _, err := evaluate(good)
	if err != nil {
		t.Fatal(err)
	}
	s, root := open()
	for i := range s.Tensors {
		s.Tensors[i].Name = "model._orig_mod." + s.Tensors[i].Name
	}
	loss := *checkpoint.NewF32([]float32{1, 2}, 2)
	loss.Name = "loss.weight"
	wrapped := save(root.Set("model_state_dict", checkpoint.FromStateDict(append(s.Tensors, loss))))
	got, logs, err := evaluate(wrapped)
	if err != nil || got != want || !strings.Contains(logs, "_orig_mod. model.") || !strings.Contains(logs, "loss.weight") {
		t.Errorf("wrapped: %v\n%s\nwant\n%s\n%s", err, got, want, logs)
	}
	p := start(t)
	p.send(newJob(t, base, map[string]any{"model": "mobilenet_v3_small", "epochs": 1, "weights": wrapped}))
	if last := p.until(never); last[len(last)-1].Kind != trainerproto.EventDone || !strings.Contains(p.stderr.String(), "_orig_mod. model.") {
		t.Errorf("training from it: %+v %s", last[len(last)-1], p.stderr)
	}

	for _, c := range []struct {
		keep []string
		want string
	}{{[]string{"arch"}, "does not contain its classes (class_to_idx)"}, {[]string{"class_to_idx"}, "does not contain its architecture (arch)"}, {nil, "architecture (arch) and classes (class_to_idx)"}} {
		s, root := open()
		d := checkpoint.NewDict().Set("model_state_dict", checkpoint.FromStateDict(s.Tensors))
		for _, k := range c.keep {
			v, _ := root.Get(k)
			d.Set(k, v)
		}
		path := save(d)
		if _, logs, err := evaluate(path); err == nil || !strings.Contains(logs, strings.ReplaceAll(c.want, " and ", ", ")) {
			t.Errorf("evaluate with %v: %v %s", c.keep, err, logs)
		}
		training := fmt.Sprintf(`{"mode": "evaluate", "model": {"checkpoint": %q}, "paths": {"image_dir": %q, "output_dir": %q}}`, path, filepath.Join(base, "validation"), t.TempDir())
		last := inferOnce(t, trainerproto.Job{Protocol: trainerproto.Version, Training: []byte(training), Params: []byte("{}"), Device: "cpu", Threads: 2, BaseDir: base})
		if !strings.Contains(last.Message, c.want) || len(c.keep) == 0 && !strings.Contains(last.Message, "its tensors are mobilenet_v3_small's") {
			t.Errorf("infer with %v: %+v", c.keep, last)
		}
	}
}
