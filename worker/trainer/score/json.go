package score

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// Document is evaluation_results.json. Shares and scores are in [0, 1].
type Document struct {
	Model       map[string]any     `json:"model"`
	Data        map[string]any     `json:"data"`
	Samples     int                `json:"num_samples"`
	Correct     int                `json:"num_correct"`
	Accuracy    float64            `json:"accuracy"`
	Balanced    float64            `json:"balanced_accuracy"`
	TopK        map[string]float64 `json:"top_k_accuracy,omitempty"` // "top_3"
	Classes     []string           `json:"class_names"`
	PerClass    []ClassScore       `json:"per_class_metrics,omitempty"`
	Macro       Average            `json:"macro_avg"`
	Weighted    Average            `json:"weighted_avg"`
	Confusion   [][]int            `json:"confusion_matrix,omitempty"` // [true][predicted]; up to DenseClasses
	Confused    []Confused         `json:"most_confused,omitempty"`
	Calibration Calibration        `json:"calibration"`
	Predictions []Row              `json:"predictions"`
}

// Row is one prediction in the document.
type Row struct {
	Path       string             `json:"image_path"`
	True       string             `json:"true_class"`
	Predicted  string             `json:"predicted_class"`
	Correct    bool               `json:"correct"`
	Confidence float64            `json:"confidence"`
	Probs      map[string]float64 `json:"probabilities"` // beyond DenseClasses of the best and the true class
}

// Document puts the evaluation into its file's form. model and data describe
// what was evaluated.
func (r *Result) Document(model, data map[string]any) Document {
	d := Document{Model: model, Data: data, Samples: r.Samples, Correct: r.Correct, Accuracy: r.Accuracy, Balanced: r.Balanced,
		TopK: map[string]float64{}, Classes: r.Classes, PerClass: r.PerClass, Macro: r.Macro, Weighted: r.Weighted,
		Confusion: r.Confusion, Confused: r.Confusions(mostConfused), Calibration: r.Calibration, Predictions: make([]Row, 0, r.Samples)}
	for k, v := range r.TopK {
		d.TopK["top_"+strconv.Itoa(k)] = v
	}
	for _, p := range r.Predictions {
		row := Row{Path: p.Path, True: r.Classes[p.True], Predicted: r.Classes[p.Predicted()], Correct: p.True == p.Predicted(),
			Confidence: p.Confidence(), Probs: map[string]float64{}}
		if len(r.Classes) <= DenseClasses {
			for i, v := range p.Probs {
				row.Probs[r.Classes[i]] = v
			}
		} else {
			for _, i := range append(p.Top(bestWritten), p.True) {
				row.Probs[r.Classes[i]] = p.Probs[i]
			}
		}
		d.Predictions = append(d.Predictions, row)
	}
	return d
}

const (
	mostConfused = 100 // pairs
	bestWritten  = 10  // classes of an image, where not all are
)

const maxDocument = 2 << 30

// ReadDocument reads evaluation_results.json back; what explain_misclassifications needs.
func ReadDocument(in io.Reader) (*Document, error) {
	var d Document
	dec := json.NewDecoder(io.LimitReader(in, maxDocument))
	if err := dec.Decode(&d); err != nil {
		return nil, fmt.Errorf("read evaluation results: %w; run mode evaluate again", err)
	}
	if len(d.Classes) == 0 {
		return nil, fmt.Errorf("read evaluation results: no class_names; is this evaluation_results.json?")
	}
	return &d, nil
}
