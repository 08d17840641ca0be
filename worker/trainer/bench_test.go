//go:build libtorch

package main_test

import (
	"bytes"
	"encoding/json"
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
