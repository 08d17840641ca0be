package plot

import (
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

// Figure is the training curve.
func (h History) Figure(about About) (Figure, []*Panel) {
	title := "Training"
	if s := about.String(); s != "" {
		title += ": " + s
	}
	return Figure{Title: title, Columns: 2}, []*Panel{
		Lines(Axes{Title: "Loss", X: "epoch", Y: "cross entropy"}, Series{Name: "training", Y: h.TrainLoss}, Series{Name: "validation", Y: h.ValLoss}),
		Lines(Axes{Title: "Accuracy", X: "epoch", Y: "accuracy"}, Series{Name: "training", Y: h.TrainAcc}, Series{Name: "validation", Y: h.ValAcc})}
}
