//go:build libtorch

package main_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"testing"

	"atelier/common/checkpoint"
)

// peer is a Python process that answers for torchvision (testdata/parity.py).
type peer struct {
	t       *testing.T
	in      *json.Encoder
	answers *bufio.Scanner
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	if err := exec.Command(python, "-c", "import torch, torchvision").Run(); err != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", err)
	}
	cmd := exec.Command(python, "testdata/parity.py")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("testdata/parity.py: %v", err)
		}
	})
	p := &peer{t: t, in: json.NewEncoder(stdin), answers: bufio.NewScanner(stdout)}
	p.answers.Buffer(nil, 16<<20)
	return p
}

// ask sends a request; answer reads the next answer.
func (p *peer) ask(request map[string]any) {
	p.t.Helper()
	if err := p.in.Encode(request); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) answer(into any) {
	p.t.Helper()
	if !p.answers.Scan() {
		p.t.Fatalf("testdata/parity.py ended: %v", p.answers.Err())
	}
	if err := json.Unmarshal(p.answers.Bytes(), into); err != nil {
		p.t.Fatal(err)
	}
}

func tensors(t *testing.T, path string) []checkpoint.Tensor {
	t.Helper()
	file, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	all, err := checkpoint.StateDict(file.Root)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func floats(t *testing.T, path string) []float32 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v
}
