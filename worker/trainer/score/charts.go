package score

import (
	"fmt"
	"path/filepath"
	"slices"

	"atelier/common/plot"
)

// History is what training_history.json keeps of each epoch.
type History = plot.History

// WriteCharts writes the evaluation's PNG files into dir and returns their
// names. h may be nil: then train_history.png is left out.
func (r *Result) WriteCharts(dir string, h *History) ([]string, error) {
	matrix, shares := r.matrices()
	accuracy, scores := r.classCharts()
	files := []struct {
		name   string
		figure plot.Figure
		panels []*plot.Panel
	}{
		{"confusion_matrix.png", plot.Figure{Columns: 2}, []*plot.Panel{matrix, shares}},
		{"class_accuracy.png", plot.Figure{}, []*plot.Panel{accuracy}},
		{"per_class_metrics.png", plot.Figure{}, []*plot.Panel{scores}},
		{"comprehensive_analysis.png", plot.Figure{Title: fmt.Sprintf("%d images, accuracy %.1f %%", r.Samples, 100*r.Accuracy), Columns: 3},
			[]*plot.Panel{matrix, accuracy, scores, r.confidences(), r.reliability(), r.topChart()}},
	}
	if h != nil {
		figure, panels := h.Figure(plot.About{})
		files = append(files, struct {
			name   string
			figure plot.Figure
			panels []*plot.Panel
		}{"train_history.png", figure, panels})
	}
	var names []string
	for _, f := range files {
		if err := f.figure.Save(filepath.Join(dir, f.name), f.panels...); err != nil {
			return names, err
		}
		names = append(names, f.name)
	}
	return names, nil
}

// chartClasses is how many classes a chart shows: more and nobody can read their
// names, and some thousand make a chart that no viewer opens.
const chartClasses = 60

// shown are the classes that charts show, in their order: all, or those with
// the most mistakes, of or for them. note says so in a title.
func (r *Result) shown() (classes []int, note string) {
	for i := range r.Classes {
		classes = append(classes, i)
	}
	if len(classes) <= chartClasses {
		return classes, ""
	}
	mistakes := make([]int, len(r.Classes))
	for c, n := range r.cells {
		if c[0] != c[1] {
			mistakes[c[0]] += n
			mistakes[c[1]] += n
		}
	}
	slices.SortStableFunc(classes, func(a, b int) int { return mistakes[b] - mistakes[a] })
	classes = classes[:chartClasses]
	slices.Sort(classes)
	return classes, fmt.Sprintf(", the %d of %d classes with most mistakes", chartClasses, len(r.Classes))
}

// matrices are the confusion matrix in images and in shares of the true class.
func (r *Result) matrices() (counts, shares *plot.Panel) {
	classes, note := r.shown()
	var names []string
	images, parts := make([][]float64, len(classes)), make([][]float64, len(classes))
	for i, c := range classes {
		names = append(names, r.Classes[c])
		for _, k := range classes {
			n := float64(r.cells[[2]int{c, k}])
			images[i] = append(images[i], n)
			parts[i] = append(parts[i], ratio(n, float64(r.PerClass[c].Support)))
		}
	}
	draw := func(title string, values [][]float64) *plot.Panel {
		return plot.Matrix(plot.Axes{Title: title, X: "predicted", Y: "true"}, plot.Cells{Rows: names, Columns: names, Counts: true, Values: values})
	}
	return draw(fmt.Sprintf("Confusion matrix, %d images%s", r.Samples, note), images), draw("Shares of the true class", parts)
}

// classCharts are the accuracy of each class and its three scores.
func (r *Result) classCharts() (accuracy, scores *plot.Panel) {
	classes, note := r.shown()
	var names []string
	var recall, precision, f1 []float64
	for _, c := range classes {
		s := r.PerClass[c]
		names, recall, precision, f1 = append(names, s.Class), append(recall, s.Recall), append(precision, s.Precision), append(f1, s.F1)
	}
	return ranked("Accuracy by class"+note, names, recall),
		plot.Bars(plot.Axes{Title: "Precision, recall, F1" + note, Low: plot.At(0), High: plot.At(1)}, names,
			plot.Series{Name: "precision", Y: precision}, plot.Series{Name: "recall", Y: recall}, plot.Series{Name: "F1", Y: f1})
}

// ranked draws a figure of each class, best first.
func ranked(title string, classes []string, values []float64) *plot.Panel {
	order := make([]int, len(classes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case values[a] > values[b]:
			return -1
		case values[a] < values[b]:
			return 1
		}
		return 0
	})
	var names []string
	var sorted []float64
	for _, i := range order {
		names, sorted = append(names, classes[i]), append(sorted, values[i])
	}
	return plot.Ranked(plot.Axes{Title: title, High: plot.At(1)}, names, sorted)
}

// confidences is a histogram of confidence, right and wrong apart.
func (r *Result) confidences() *plot.Panel {
	const n = 10
	names := make([]string, n)
	right, wrong := make([]float64, n), make([]float64, n)
	for i := range names {
		names[i] = fmt.Sprintf("%d-%d", i*10, (i+1)*10)
	}
	for _, p := range r.Predictions {
		i := min(int(p.Confidence()*n), n-1)
		if p.Predicted() == p.True {
			right[i]++
		} else {
			wrong[i]++
		}
	}
	return plot.Bars(plot.Axes{Title: "Confidence", X: "confidence, %", Y: "images", Low: plot.At(0)}, names, plot.Series{Name: "right", Y: right}, plot.Series{Name: "wrong", Y: wrong})
}

// reliability is the diagram of Guo et al.: accuracy against confidence.
func (r *Result) reliability() *plot.Panel {
	var x, y []float64
	for _, b := range r.Calibration.Bins {
		if b.Count > 0 {
			x, y = append(x, b.Confidence), append(y, b.Accuracy)
		}
	}
	return plot.Lines(plot.Axes{Title: fmt.Sprintf("Reliability, ECE %.3f", r.Calibration.ECE), X: "confidence", Y: "accuracy", Low: plot.At(0), High: plot.At(1)},
		plot.Series{Name: "model", X: x, Y: y}, plot.Series{Name: "perfect", X: []float64{0, 1}, Y: []float64{0, 1}})
}

func (r *Result) topChart() *plot.Panel {
	var names []string
	var values []float64
	for _, k := range r.tops() {
		names, values = append(names, fmt.Sprintf("top %d", k)), append(values, r.TopK[k])
	}
	return plot.Bars(plot.Axes{Title: "Top-k accuracy", Low: plot.At(0), High: plot.At(1)}, names, plot.Series{Y: values})
}
