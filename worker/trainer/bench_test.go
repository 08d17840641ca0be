//go:build libtorch

package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// A program that measures several at once paces each by lines.
func TestBenchTakesTurns(t *testing.T) {
	cmd := exec.Command(trainer, "bench", "--paced", "--model", "vanilla", "--size", "32", "--batch", "2", "--threads", "1", "--layout", "auto", "--warmup", "1")
	cmd.Stdin = strings.NewReader("1\n2\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := json.NewDecoder(bytes.NewReader(out))
	var ready struct {
		Ready bool
		Auto  string
	}
	if err := lines.Decode(&ready); err != nil || !ready.Ready || ready.Auto != "channels_last" {
		t.Fatalf("first line: %+v, %v", ready, err)
	}
	for i := range 2 {
		var block struct {
			Rate float64 `json:"images_per_s"`
		}
		if err := lines.Decode(&block); err != nil || block.Rate <= 0 {
			t.Fatalf("block %d: %+v, %v", i+1, block, err)
		}
	}
	if lines.More() {
		t.Errorf("more lines than blocks:\n%s", out)
	}

	wrong := exec.Command(trainer, "bench", "--paced", "--model", "vanilla", "--size", "32", "--batch", "2", "--threads", "1")
	wrong.Stdin = strings.NewReader("many\n")
	if text, err := wrong.CombinedOutput(); err == nil || !strings.Contains(string(text), `number of steps a line, got "many"`) {
		t.Errorf("%v\n%s", err, text)
	}
}

// Kernels are turned off by flag, which goes before the environment, and the
// result says which were on.
func TestBenchWithoutKernels(t *testing.T) {
	bench := func(environment string, args ...string) (kernels string, text []byte, err error) {
		cmd := exec.Command(trainer, append([]string{"bench", "--model", "efficientnet_b0", "--size", "32", "--batch", "2", "--threads", "1", "--steps", "1", "--repeats", "1", "--warmup", "1"}, args...)...)
		cmd.Env = append(os.Environ(), "ATELIER_KERNELS="+environment)
		if text, err = cmd.CombinedOutput(); err != nil {
			return "", text, err
		}
		var r struct{ Kernels string }
		err = json.Unmarshal(text, &r)
		return r.Kernels, text, err
	}
	for _, c := range []struct {
		environment string
		args        []string
		want        string
	}{
		{"", nil, "all"},
		{"none", []string{"--augmented"}, "none"},
		{"none", []string{"--kernels", "norm,squeeze"}, "norm,squeeze"},
	} {
		if got, text, err := bench(c.environment, c.args...); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v\n%s", c, got, err, text)
		}
	}
	if _, text, err := bench("", "--kernels", "fast"); err == nil || !strings.Contains(string(text), "dense, depthwise") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, text, err := bench("fast"); err == nil || !strings.Contains(string(text), "ATELIER_KERNELS") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestKernelsAreListed(t *testing.T) {
	cmd := exec.Command(trainer, "kernels")
	cmd.Env = append(os.Environ(), "ATELIER_KERNELS=-norm")
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"norm       no ", "dense      yes ", "gotorch's BatchNorm", "compiled for "} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v, no %q in\n%s", err, want, out)
		}
	}
}
