package schedule_test

import (
	"encoding/json"
	"math"
	"os"
	"os/exec"
	"testing"

	"atelier/worker/trainer/optim/schedule"
)

const updates = 4 // an epoch, as in testdata/rates.py

func golden(t *testing.T) (rates map[string][]float64) {
	t.Helper()
	b, err := os.ReadFile("testdata/rates.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &rates); err != nil {
		t.Fatal(err)
	}
	return rates
}

func TestRatesAreTorchs(t *testing.T) {
	want := golden(t)
	for name, s := range map[string]schedule.Schedule{
		"constant":    {Kind: schedule.Constant, Epochs: 3},
		"step":        {Kind: schedule.Step, StepEpochs: 2, Gamma: 0.3, Epochs: 7},
		"cosine":      {Kind: schedule.Cosine, Min: 0.01, Epochs: 6},
		"warm cosine": {Kind: schedule.Cosine, Epochs: 6, Warmup: 1.5},
		"warm step":   {Kind: schedule.Step, StepEpochs: 2, Gamma: 0.3, Epochs: 7, Warmup: 1},
		"plateau":     {Kind: schedule.Plateau, StepEpochs: 2, Gamma: 0.2, Min: 0.001, Epochs: 12},
		"plateau max": {Kind: schedule.Plateau, StepEpochs: 2, Gamma: 0.2, Min: 0.001, Epochs: 12},
	} {
		s.LR = 0.1
		var state schedule.State
		if len(want[name]) != s.Epochs*updates {
			t.Fatalf("%s: %d rates in testdata", name, len(want[name]))
		}
		for i, w := range want[name] {
			p := schedule.Position{Epoch: i / updates, Update: i % updates, Updates: updates, Drops: state.Drops}
			if got := s.At(p); math.Abs(got-w) > 1e-12 {
				t.Errorf("%s: update %d of epoch %d: %.15g, torch %.15g", name, p.Update, p.Epoch+1, got, w)
			}
			if p.Update == updates-1 && s.Kind == schedule.Plateau {
				v := want["objective"][p.Epoch]
				if name == "plateau max" {
					v = 2 - v
				}
				state = s.Observe(state, p.Epoch+1, v, name == "plateau max")
			}
		}
		if s.Kind == schedule.Plateau && state.Drops < 2 {
			t.Errorf("%s: %d drops: the test shows little", name, state.Drops)
		}
	}
}

// The golden file is what this machine's PyTorch says, where there is one.
func TestGoldenFileIsTorchs(t *testing.T) {
	out, err := exec.Command("/usr/bin/python3", "testdata/rates.py").Output()
	if err != nil {
		t.Skipf("no PyTorch to ask: %v", err)
	}
	var now map[string][]float64
	if err := json.Unmarshal(out, &now); err != nil {
		t.Fatal(err)
	}
	for name, want := range golden(t) {
		for i, w := range want {
			if len(now[name]) != len(want) || math.Abs(now[name][i]-w) > 1e-12 {
				t.Fatalf("%s differs; python3 testdata/rates.py > testdata/rates.json", name)
			}
		}
	}
}

func TestEdges(t *testing.T) {
	s := schedule.Schedule{Kind: schedule.Cosine, LR: 1, Min: 0.5, Epochs: 1}
	if got := s.At(schedule.Position{Updates: 1}); got != 1 {
		t.Errorf("one update in all: %v", got)
	}
	s = schedule.Schedule{Kind: schedule.Constant, LR: 1, Epochs: 2, Warmup: 0.01}
	if got := s.At(schedule.Position{Updates: 3}); got != 0.5 {
		t.Errorf("a warm-up shorter than an update is one update: %v", got)
	}
	p := schedule.Schedule{Kind: schedule.Plateau, LR: 1, Gamma: 0.1, StepEpochs: 1, Epochs: 9, Warmup: 2}
	var st schedule.State
	for epoch, v := range []float64{1, math.NaN(), math.NaN(), 3, 4} {
		st = p.Observe(st, epoch+1, v, false)
	}
	if st != (schedule.State{Best: 3, Known: true, Drops: 2}) {
		t.Errorf("warm-up ignored, NaN not better: %+v", st)
	}
}
