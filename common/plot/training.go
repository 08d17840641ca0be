package plot

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// History is what training_history.json keeps of each epoch; empty slices
// where a file does not have a metric.
type History struct {
	TrainLoss []float64 `json:"train_loss"`
	TrainAcc  []float64 `json:"train_acc"`
	ValLoss   []float64 `json:"val_loss"`
	ValAcc    []float64 `json:"val_acc"`
	LR        []float64 `json:"lr"`
}

// About is what a figure shows: it stands in small letters below its title.
// Empty fields are left out.
type About struct {
	Model, Data string
	When        time.Time
}

func (a About) String() string {
	var parts []string
	for _, s := range []string{a.Model, a.Data} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if !a.When.IsZero() {
		parts = append(parts, a.When.UTC().Format("2006-01-02 15:04 UTC"))
	}
	return strings.Join(parts, "  ·  ")
}

// Save draws the training curve, loss and accuracy by epoch, into a file.
func (h History) Save(path string, about About) error {
	f, panels := h.Figure(about)
	return f.Save(path, panels...)
}

// Figure is the training curve: loss and accuracy by epoch, the best epoch
// marked. A loss whose first epochs, or an outlier, would press the others
// into a line has a logarithmic axis.
func (h History) Figure(about About) (Figure, []*Panel) {
	best := h.best()
	loss := Axes{Title: "Loss", X: "epoch", Y: "cross entropy", WholeX: true}
	accuracy := Axes{Title: "Accuracy", X: "epoch", Y: "accuracy", WholeX: true, Percent: true}
	if loss.LogY = wideRange(h.TrainLoss, h.ValLoss); loss.LogY {
		loss.Y += ", logarithmic"
	}
	if best > 0 {
		name := "best: epoch " + strconv.Itoa(best)
		loss.Marks, accuracy.Marks = []Mark{{float64(best), name}}, []Mark{{float64(best), name}}
	}
	return Figure{Title: "Training curve", About: about.String(), Columns: 2}, []*Panel{
		Lines(loss, Series{Name: "training", Y: h.TrainLoss}, Series{Name: "validation", Y: h.ValLoss}),
		Lines(accuracy, Series{Name: "training", Y: h.TrainAcc}, Series{Name: "validation", Y: h.ValAcc})}
}

// best is the epoch whose model a training keeps: the one of the lowest
// validation loss, counted from 1; 0 where there is none.
func (h History) best() (epoch int) {
	for i, v := range h.ValLoss {
		if finite(v) && (epoch == 0 || v < h.ValLoss[epoch-1]) {
			epoch = i + 1
		}
	}
	return epoch
}

// wideRange reports whether a linear axis would hide most of positive values:
// the largest is more than 20 times their median.
func wideRange(series ...[]float64) bool {
	var all []float64
	for _, s := range series {
		for _, v := range s {
			if finite(v) {
				all = append(all, v)
			}
		}
	}
	if len(all) == 0 {
		return false
	}
	slices.Sort(all)
	return all[0] > 0 && all[len(all)-1] > 20*all[len(all)/2]
}

// UnmarshalJSON reads the lists; null, which a diverged epoch has, is NaN.
func (h *History) UnmarshalJSON(b []byte) error {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b, &doc); err != nil {
		return err
	}
	for key, to := range map[string]*[]float64{"train_loss": &h.TrainLoss, "train_acc": &h.TrainAcc, "val_loss": &h.ValLoss, "val_acc": &h.ValAcc, "lr": &h.LR} {
		var list []*float64
		if raw, ok := doc[key]; ok {
			if err := json.Unmarshal(raw, &list); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		*to = nil
		for _, v := range list {
			if v == nil {
				*to = append(*to, math.NaN())
			} else {
				*to = append(*to, *v)
			}
		}
	}
	return nil
}
