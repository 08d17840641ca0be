package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"atelier/common/files"
	"atelier/common/trainerproto"
)

// Number is a float64 that is null in JSON when it is not finite.
type Number float64

// MarshalJSON writes a number or null.
func (n Number) MarshalJSON() ([]byte, error) {
	if f := float64(n); math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// UnmarshalJSON reads a number; null is NaN.
func (n *Number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*n = Number(math.NaN())
		return nil
	}
	return json.Unmarshal(b, (*float64)(n))
}

// How a training stands.
const (
	Running     = "running"
	Finished    = "finished"
	Interrupted = "interrupted"
	Diverged    = "diverged"
	Failed      = "failed"
)

// History is training_history.json. The lists have one entry an epoch, as
// epochs says; accuracies are in 0..1.
type History struct {
	Model      string   `json:"model"`
	Status     string   `json:"status"`
	Message    string   `json:"message"` // how it ended
	Epochs     []int    `json:"epochs"`
	TrainLoss  []Number `json:"train_loss"`
	TrainAcc   []Number `json:"train_acc"`
	ValLoss    []Number `json:"val_loss"`
	ValAcc     []Number `json:"val_acc"`
	LR         []Number `json:"lr"`
	ImagesPerS []Number `json:"images_per_s"`
	Seconds    []Number `json:"epoch_seconds"`

	BestEpoch   int    `json:"best_epoch"` // lowest val_loss; 0 = none yet
	BestValLoss Number `json:"best_val_loss"`
	BestValAcc  Number `json:"best_val_acc"` // of that epoch

	TestLoss    Number            `json:"test_loss"` // of the best model; null = not tested
	TestAcc     Number            `json:"test_acc"`
	TestImages  int               `json:"test_images"`
	TestClasses map[string]Number `json:"test_class_acc"`

	Seed    uint64  `json:"seed"`
	Device  string  `json:"device"`
	Runtime float64 `json:"runtime_seconds"` // of all sessions
	Started int64   `json:"started_ms"`      // Unix time
}

// metrics are the lists by the names of a trainer's report.
func (h *History) metrics() []struct {
	name string
	list *[]Number
} {
	return []struct {
		name string
		list *[]Number
	}{{"train_loss", &h.TrainLoss}, {"train_acc", &h.TrainAcc}, {"val_loss", &h.ValLoss}, {"val_acc", &h.ValAcc}, {"lr", &h.LR}, {"images_per_s", &h.ImagesPerS}}
}

// empty makes the lists lists: a history without epochs has [] in it.
func (h *History) empty() {
	h.Epochs = []int{}
	for _, m := range h.metrics() {
		*m.list = []Number{}
	}
	h.Seconds = []Number{}
	h.judge()
}

// add notes an epoch's report.
func (h *History) add(epoch int, metrics trainerproto.Metrics, seconds float64) {
	h.Epochs = append(h.Epochs, epoch)
	for _, m := range h.metrics() {
		v, ok := metrics.Get(m.name)
		if !ok {
			v = math.NaN()
		}
		*m.list = append(*m.list, Number(v))
	}
	h.Seconds = append(h.Seconds, Number(seconds))
	h.judge()
}

// cut forgets the epochs after one.
func (h *History) cut(epoch int) {
	n := len(h.Epochs)
	for n > 0 && h.Epochs[n-1] > epoch {
		n--
	}
	h.Epochs = h.Epochs[:n]
	for _, m := range h.metrics() {
		*m.list = (*m.list)[:min(n, len(*m.list))]
	}
	h.Seconds = h.Seconds[:min(n, len(h.Seconds))]
	h.judge()
}

// judge finds the best epoch: the first of the lowest val_loss.
func (h *History) judge() {
	h.BestEpoch, h.BestValLoss, h.BestValAcc = 0, Number(math.NaN()), Number(math.NaN())
	for i, v := range h.ValLoss {
		if f := float64(v); !math.IsNaN(f) && (h.BestEpoch == 0 || f < float64(h.BestValLoss)) {
			h.BestEpoch, h.BestValLoss, h.BestValAcc = h.Epochs[i], v, h.ValAcc[i]
		}
	}
}

// last is the newest epoch, 0 before the first.
func (h *History) last() int {
	if len(h.Epochs) == 0 {
		return 0
	}
	return h.Epochs[len(h.Epochs)-1]
}

// at is the place of an epoch in the lists, -1 if it is not there.
func (h *History) at(epoch int) int {
	for i, e := range h.Epochs {
		if e == epoch {
			return i
		}
	}
	return -1
}

// write replaces the file whole: other programs read it while the training goes on.
func (h *History) write(path string) error {
	b, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return files.Write(path, append(b, '\n'), 0o644)
}

// ReadHistory reads a training_history.json. A missing file is an empty
// history.
func ReadHistory(path string) (*History, error) {
	h := &History{}
	h.empty()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, m := range h.metrics() {
		if len(*m.list) != len(h.Epochs) {
			return nil, fmt.Errorf("%s: %d epochs and %d values of %s", path, len(h.Epochs), len(*m.list), m.name)
		}
	}
	if len(h.Seconds) != len(h.Epochs) {
		return nil, fmt.Errorf("%s: %d epochs and %d values of epoch_seconds", path, len(h.Epochs), len(h.Seconds))
	}
	return h, nil
}
