// Package score turns predictions into the figures of an evaluation and writes
// its files: evaluation_results.json, evaluation_summary.txt,
// classification_report.txt and the charts. It knows nothing of models;
// figures are those of scikit-learn where it has them. It refuses predictions
// that do not fit the classes.
package score

import (
	"fmt"
	"math"
	"slices"
)

// Prediction is what a model said of one image.
type Prediction struct {
	Path  string
	True  int       // index of the true class; -1 = unknown, then it counts nowhere
	Probs []float64 // one share a class, sum 1
}

// Predicted is the class of the largest share; of equal ones the first.
func (p Prediction) Predicted() int {
	best := 0
	for i, v := range p.Probs {
		if v > p.Probs[best] {
			best = i
		}
	}
	return best
}

// Confidence is the share of the predicted class.
func (p Prediction) Confidence() float64 { return p.Probs[p.Predicted()] }

// Top lists the k classes of the largest shares, largest first.
func (p Prediction) Top(k int) []int {
	order := make([]int, len(p.Probs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p.Probs[a] > p.Probs[b]:
			return -1
		case p.Probs[a] < p.Probs[b]:
			return 1
		}
		return 0
	})
	return order[:min(max(k, 0), len(order))]
}

// ClassScore holds one class's figures; those whose denominator is 0 are 0, as
// scikit-learn's zero_division=0.
type ClassScore struct {
	Class     string  `json:"class"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1_score"`
	Accuracy  float64 `json:"accuracy"` // share of the class's images that were recognised: its recall
	Support   int     `json:"support"`  // images of the class
	Predicted int     `json:"predicted"`
}

// Average is a mean of the classes' figures.
type Average struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1_score"`
}

// Bin is one bar of the reliability diagram: predictions whose confidence is in (Low, High].
type Bin struct {
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Count      int     `json:"count"`
	Confidence float64 `json:"mean_confidence"`
	Accuracy   float64 `json:"accuracy"`
}

// Calibration tells how far confidence can be believed (Guo et al. 2017,
// "On Calibration of Modern Neural Networks": 15 equal bins; Brier 1950 in its
// multi-class form, 0 to 2).
type Calibration struct {
	ECE   float64 `json:"expected_calibration_error"`
	MCE   float64 `json:"maximum_calibration_error"`
	Brier float64 `json:"brier_score"`
	NLL   float64 `json:"log_loss"` // natural logarithm, shares cut at 2.2e-16
	Bins  []Bin   `json:"bins"`
}

// Result is an evaluation.
type Result struct {
	Classes     []string
	Samples     int
	Correct     int
	Accuracy    float64
	Balanced    float64 // mean recall of the classes that have images
	TopK        map[int]float64
	PerClass    []ClassScore
	Macro       Average
	Weighted    Average
	Confusion   [][]int // [true][predicted]; nil for more than DenseClasses
	Calibration Calibration
	Predictions []Prediction // with a known class, in the order given

	cells map[[2]int]int // images by true and predicted class: as many as there are images at most
}

// DenseClasses is up to how many classes there is a whole confusion matrix and
// every image's shares are written in full. Both grow with the square of the
// classes, or with classes times images; beyond it files hold the most confused
// pairs and each image's best classes.
const DenseClasses = 100

const bins = 15

// Score computes an evaluation. top names the k of top-k accuracy; those
// beyond the number of classes are left out.
func Score(classes []string, predictions []Prediction, top []int) (*Result, error) {
	if len(classes) == 0 {
		return nil, fmt.Errorf("score: no classes")
	}
	r := &Result{Classes: classes, TopK: map[int]float64{}, cells: map[[2]int]int{}}
	for _, p := range predictions {
		if len(p.Probs) != len(classes) {
			return nil, fmt.Errorf("score %s: %d shares for %d classes", p.Path, len(p.Probs), len(classes))
		}
		if p.True >= len(classes) {
			return nil, fmt.Errorf("score %s: class %d of %d", p.Path, p.True, len(classes))
		}
		if i := slices.IndexFunc(p.Probs, func(v float64) bool { return math.IsNaN(v) }); i >= 0 {
			return nil, fmt.Errorf("score %s: the model's output for class %q is not a number; are its weights sound?", p.Path, classes[i])
		}
		if p.True >= 0 {
			r.Predictions = append(r.Predictions, p)
			r.cells[[2]int{p.True, p.Predicted()}]++
		}
	}
	if len(classes) <= DenseClasses {
		r.Confusion = make([][]int, len(classes))
		for i := range r.Confusion {
			r.Confusion[i] = make([]int, len(classes))
		}
		for c, n := range r.cells {
			r.Confusion[c[0]][c[1]] = n
		}
	}
	r.Samples = len(r.Predictions)
	if r.Samples == 0 {
		return nil, fmt.Errorf("score: none of %d images has a known class; evaluation needs one folder per class", len(predictions))
	}
	for _, k := range top {
		if k > 0 && k <= len(classes) {
			r.TopK[k] = topK(r.Predictions, k)
		}
	}
	r.classes()
	r.calibrate()
	return r, nil
}

// topK counts as scikit-learn's top_k_accuracy_score does: of equal shares the
// class with the higher index comes first.
func topK(predictions []Prediction, k int) float64 {
	hit := 0
	for _, p := range predictions {
		before := 0
		for i, v := range p.Probs {
			if v > p.Probs[p.True] || v == p.Probs[p.True] && i > p.True {
				before++
			}
		}
		if before < k {
			hit++
		}
	}
	return float64(hit) / float64(len(predictions))
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func (r *Result) classes() {
	present := 0
	support, predicted := make([]int, len(r.Classes)), make([]int, len(r.Classes))
	for c, n := range r.cells {
		support[c[0]] += n
		predicted[c[1]] += n
	}
	for i, name := range r.Classes {
		c := ClassScore{Class: name, Support: support[i], Predicted: predicted[i]}
		hit := r.cells[[2]int{i, i}]
		r.Correct += hit
		c.Precision = ratio(float64(hit), float64(c.Predicted))
		c.Recall = ratio(float64(hit), float64(c.Support))
		c.Accuracy = c.Recall
		c.F1 = ratio(2*c.Precision*c.Recall, c.Precision+c.Recall)
		r.PerClass = append(r.PerClass, c)
		n, weight := float64(len(r.Classes)), float64(c.Support)/float64(r.Samples)
		r.Macro.Precision += c.Precision / n
		r.Macro.Recall += c.Recall / n
		r.Macro.F1 += c.F1 / n
		r.Weighted.Precision += c.Precision * weight
		r.Weighted.Recall += c.Recall * weight
		r.Weighted.F1 += c.F1 * weight
		if c.Support > 0 {
			present++
			r.Balanced += c.Recall
		}
	}
	r.Accuracy = float64(r.Correct) / float64(r.Samples)
	r.Balanced = ratio(r.Balanced, float64(present))
}

func (r *Result) calibrate() {
	c := &r.Calibration
	c.Bins = make([]Bin, bins)
	for i := range c.Bins {
		c.Bins[i].Low, c.Bins[i].High = float64(i)/bins, float64(i+1)/bins
	}
	for _, p := range r.Predictions {
		conf := p.Confidence()
		b := &c.Bins[min(max(int(math.Ceil(conf*bins))-1, 0), bins-1)]
		b.Count++
		b.Confidence += conf
		if p.Predicted() == p.True {
			b.Accuracy++
		}
		for i, v := range p.Probs {
			if i == p.True {
				v = 1 - v
			}
			c.Brier += v * v
		}
		c.NLL -= math.Log(min(max(p.Probs[p.True], 0x1p-52), 1-0x1p-52))
	}
	n := float64(r.Samples)
	c.Brier, c.NLL = c.Brier/n, c.NLL/n
	for i := range c.Bins {
		b := &c.Bins[i]
		if b.Count == 0 {
			continue
		}
		b.Confidence /= float64(b.Count)
		b.Accuracy /= float64(b.Count)
		gap := math.Abs(b.Confidence - b.Accuracy)
		c.ECE += gap * float64(b.Count) / n
		c.MCE = max(c.MCE, gap)
	}
}

// Mistakes lists the predictions that were wrong, most confident first.
func (r *Result) Mistakes() []Prediction {
	var out []Prediction
	for _, p := range r.Predictions {
		if p.Predicted() != p.True {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b Prediction) int {
		switch ca, cb := a.Confidence(), b.Confidence(); {
		case ca > cb:
			return -1
		case ca < cb:
			return 1
		}
		return 0
	})
	return out
}
