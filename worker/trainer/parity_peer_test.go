//go:build libtorch

package main_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"sync"
	"testing"

	"atelier/common/checkpoint"
)

// peer is a Python process that answers for torchvision (testdata/parity.py).
// It starts with the first test that asks and serves all that follow.
type peer struct {
	t       *testing.T // of the test that asks
	cmd     *exec.Cmd
	stdin   io.Closer
	in      *json.Encoder
	answers *bufio.Scanner
	open    int // requests without an answer yet
}

var shared struct {
	once sync.Once
	*peer
	lacks error // torchvision
	err   error
}

// askPython gives the test the peer, or skips it where there is no torchvision.
func askPython(t *testing.T) *peer {
	t.Helper()
	shared.once.Do(func() {
		if shared.lacks = exec.Command(python, "-c", "import importlib.util as u; assert u.find_spec('torch') and u.find_spec('torchvision')").Run(); shared.lacks == nil {
			shared.peer, shared.err = startPeer()
		}
	})
	if shared.lacks != nil {
		t.Skipf("no torchvision to compare with (apt-get install python3-torchvision): %v", shared.lacks)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	shared.serve(t)
	return shared.peer
}

// serve makes the peer t's. Answers that a test did not wait for are passed over.
func (p *peer) serve(t *testing.T) {
	t.Helper()
	for p.t = t; p.open > 0; {
		p.answer(&json.RawMessage{})
	}
}

func startPeer() (*peer, error) {
	cmd := exec.Command(python, "testdata/parity.py")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &peer{cmd: cmd, stdin: stdin, in: json.NewEncoder(stdin), answers: bufio.NewScanner(stdout)}
	p.answers.Buffer(nil, 16<<20)
	return p, cmd.Start()
}

// endPeer ends the process, if there is one.
func endPeer() error {
	if shared.peer == nil {
		return nil
	}
	shared.stdin.Close()
	return shared.cmd.Wait()
}

// ask sends a request; answer reads the next answer.
func (p *peer) ask(request map[string]any) {
	p.t.Helper()
	if err := p.in.Encode(request); err != nil {
		p.t.Fatal(err)
	}
	p.open++
}

func (p *peer) answer(into any) {
	p.t.Helper()
	p.open--
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
