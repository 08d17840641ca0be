package score

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"

	"atelier/common/plot"
)

// History is what training_history.json keeps of each epoch.
type History = plot.History

const (
	// barClasses is up to how many classes bars show each of them; dots show more.
	barClasses = 8
	// pageClasses is up to how many classes the charts of classes are on the page
	// of all; with more each has a page of its own.
	pageClasses = 12
	// listed is how many classes and confusions the page of all has then.
	listed = 10
)

// Names of the charts' PNG files, each with an SVG beside it.
const (
	matrixFile   = "confusion_matrix.png"
	sharesFile   = "confusion_matrix_normalized.png" // beyond pageClasses; else it is in matrixFile
	accuracyFile = "class_accuracy.png"
	scoresFile   = "per_class_metrics.png"
	pageFile     = "comprehensive_analysis.png"
	historyFile  = "train_history.png"
)

// WriteCharts writes the evaluation's charts into dir, each as PNG and SVG, and
// returns their names. h may be nil: then train_history.png is left out. about
// is written below each title.
func (r *Result) WriteCharts(dir string, h *History, about plot.About) ([]string, error) {
	type file struct {
		name   string
		figure plot.Figure
		panels []*plot.Panel
	}
	matrix, shares := r.matrices()
	accuracy, scores := r.classCharts()
	title := fmt.Sprintf("Evaluation: %.1f %% of %s images right, %d classes", 100*r.Accuracy, plot.Count(r.Samples), len(r.Classes))
	files := []file{{matrixFile, plot.Figure{Title: "Confusion matrix", Columns: 2}, []*plot.Panel{matrix, shares}}}
	page := []*plot.Panel{matrix, accuracy, scores, r.confidences(), r.reliability(), r.topChart()}
	if len(r.Classes) > pageClasses {
		files = []file{{matrixFile, plot.Figure{Title: "Confusion matrix"}, []*plot.Panel{matrix}},
			{sharesFile, plot.Figure{Title: "Confusion matrix, normalized"}, []*plot.Panel{shares}}}
		page = []*plot.Panel{r.confidences(), r.reliability(), r.topChart(), r.worst(), r.confusions()}
	}
	files = append(files, file{accuracyFile, plot.Figure{Title: "Accuracy by class"}, []*plot.Panel{accuracy}},
		file{scoresFile, plot.Figure{Title: "Precision, recall and F1 by class"}, []*plot.Panel{scores}},
		file{pageFile, plot.Figure{Title: title, Columns: 3}, page})
	for i := range files {
		files[i].figure.About = about.String()
	}
	if h != nil {
		figure, panels := h.Figure(about)
		files = append(files, file{historyFile, figure, panels})
	}
	var names []string
	for _, f := range files {
		if err := f.figure.Save(filepath.Join(dir, f.name), f.panels...); err != nil {
			return names, err
		}
		names = append(names, f.name, plot.SVG(f.name))
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
	a := plot.Axes{Title: fmt.Sprintf("%s images%s", plot.Count(r.Samples), note), X: "predicted", Y: "true"}
	counts = plot.Matrix(a, plot.Cells{Rows: names, Columns: names, Counts: true, Values: images})
	// Below half a per cent a share would be written as 0.
	a.Title, a.Percent = "Shares of the true class, %", true
	return counts, plot.Matrix(a, plot.Cells{Rows: names, Columns: names, Counts: true, Values: parts, High: plot.At(1), Least: 0.005})
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
	axes := plot.Axes{Title: "Precision, recall, F1" + note, Low: plot.At(0), High: plot.At(1), Percent: true}
	accuracy = ranked("Accuracy by class"+note, names, recall)
	if len(names) <= barClasses {
		return accuracy, plot.Bars(axes, names, plot.Series{Name: "precision", Y: precision}, plot.Series{Name: "recall", Y: recall}, plot.Series{Name: "F1", Y: f1})
	}
	axes.Title += ", best F1 first"
	return accuracy, dots(axes, names, f1, precision, recall)
}

// dots has a row for each class, those with the best F1 first.
func dots(a plot.Axes, names []string, f1, precision, recall []float64) *plot.Panel {
	order := best(f1)
	return plot.Dots(a, picked(names, order), plot.Series{Name: "F1", Y: picked(f1, order)},
		plot.Series{Name: "precision", Y: picked(precision, order)}, plot.Series{Name: "recall", Y: picked(recall, order)})
}

func picked[T any](from []T, places []int) (out []T) {
	for _, i := range places {
		out = append(out, from[i])
	}
	return out
}

// worst are the classes with the lowest F1, on the page of all.
func (r *Result) worst() *plot.Panel {
	var f1, precision, recall []float64
	var names []string
	for _, c := range r.PerClass {
		names, f1, precision, recall = append(names, c.Class), append(f1, c.F1), append(precision, c.Precision), append(recall, c.Recall)
	}
	last := best(f1)[max(0, len(f1)-listed):]
	return dots(plot.Axes{Title: fmt.Sprintf("The %d classes with the lowest F1", len(last)), Low: plot.At(0), High: plot.At(1), Percent: true},
		picked(names, last), picked(f1, last), picked(precision, last), picked(recall, last))
}

// confusions are the most frequent mistakes, on the page of all.
func (r *Result) confusions() *plot.Panel {
	var names []string
	var images []float64
	for _, c := range r.Confusions(listed) {
		names, images = append(names, c.True+" as "+c.Predicted), append(images, float64(c.Images))
	}
	return plot.Ranked(plot.Axes{Title: "Most frequent confusions", X: "images"}, names, images)
}

// ranked draws a figure of each class, best first.
func ranked(title string, classes []string, values []float64) *plot.Panel {
	order := best(values)
	return plot.Ranked(plot.Axes{Title: title, High: plot.At(1), Percent: true}, picked(classes, order), picked(values, order))
}

// best are the places of values, the largest first.
func best(values []float64) []int {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(values[b], values[a]) })
	return order
}

// confidences is a histogram of confidence, right and wrong apart.
func (r *Result) confidences() *plot.Panel {
	const n = 10
	names := make([]string, n)
	right, wrong := make([]float64, n), make([]float64, n)
	for i := range names {
		names[i] = fmt.Sprintf("%d to %d", i*10, (i+1)*10)
	}
	for _, p := range r.Predictions {
		i := min(int(p.Confidence()*n), n-1)
		if p.Predicted() == p.True {
			right[i]++
		} else {
			wrong[i]++
		}
	}
	return plot.Bars(plot.Axes{Title: "Confidence", X: "confidence, %", Y: "images", WholeY: true, Low: plot.At(0)}, names,
		plot.Series{Name: "right", Y: right, Fill: &plot.Fill{Color: plot.Blue}}, plot.Series{Name: "wrong", Y: wrong, Fill: &plot.Fill{Color: plot.Vermilion, Hatch: plot.Rising}})
}

// reliability is the diagram of Guo et al.: accuracy against confidence.
func (r *Result) reliability() *plot.Panel {
	var x, y []float64
	for _, b := range r.Calibration.Bins {
		if b.Count > 0 {
			x, y = append(x, 100*b.Confidence), append(y, b.Accuracy)
		}
	}
	return plot.Lines(plot.Axes{Title: fmt.Sprintf("Reliability, ECE %.3f", r.Calibration.ECE), X: "confidence, %", Y: "accuracy", Low: plot.At(0), High: plot.At(1), Percent: true},
		plot.Series{Name: "model", X: x, Y: y}, plot.Series{Name: "perfect", X: []float64{0, 100}, Y: []float64{0, 1}, Guide: true})
}

func (r *Result) topChart() *plot.Panel {
	var names []string
	var values []float64
	for _, k := range r.tops() {
		names, values = append(names, fmt.Sprintf("top %d", k)), append(values, r.TopK[k])
	}
	return plot.Bars(plot.Axes{Title: "Top-k accuracy", Low: plot.At(0), High: plot.At(1), Percent: true}, names, plot.Series{Y: values})
}
