package score_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/plot"
	"atelier/worker/trainer/score"
)

// draw makes predictions that are right in a share of cases and sure by a
// temperature; class len-1 never occurs when absent is set.
func draw(seed uint64, classes, n int, absent bool) []score.Prediction {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]score.Prediction, n)
	for i := range out {
		of := classes
		if absent {
			of--
		}
		p := score.Prediction{Path: fmt.Sprintf("%d.jpg", i), True: r.IntN(of), Probs: make([]float64, classes)}
		sum := 0.0
		for k := range p.Probs {
			v := r.NormFloat64() * 1.5
			if k == p.True {
				v += 1.2
			}
			p.Probs[k] = math.Exp(v)
			sum += p.Probs[k]
		}
		for k := range p.Probs {
			p.Probs[k] /= sum
		}
		out[i] = p
	}
	return out
}

func names(n int) (out []string) {
	for i := range n {
		out = append(out, []string{"american_craftsman", "colonial", "gothic", "Häuser am Kanal, spät", "tudor", "art_deco"}[i%6]+strings.Repeat("x", i/6))
	}
	return out
}

// The figures are scikit-learn's on the same predictions.
func TestAgreesWithScikitLearn(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import sklearn").Run(); err != nil {
		t.Skipf("no scikit-learn to compare with (apt-get install python3-sklearn): %v", err)
	}
	for i, tc := range []struct {
		classes, n int
		absent     bool
	}{{5, 400, false}, {3, 7, false}, {6, 60, true}, {2, 50, false}, {25, 900, false}} {
		classes, top := names(tc.classes), []int{1, 2, 3}
		predictions := draw(uint64(i), tc.classes, tc.n, tc.absent)
		if i == 1 {
			for k := range predictions { // ties, and a class nobody predicts
				predictions[k].Probs = []float64{0.4, 0.4, 0.2}
			}
		}
		in := map[string]any{"classes": classes, "top": top[:min(3, tc.classes-1)]}
		var true_ []int
		var probs [][]float64
		for _, p := range predictions {
			true_, probs = append(true_, p.True), append(probs, p.Probs)
		}
		in["true"], in["probs"] = true_, probs
		b, _ := json.Marshal(in)
		cmd := exec.Command(python, "testdata/peer.py")
		cmd.Stdin, cmd.Stderr = bytes.NewReader(b), os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var want struct {
			Accuracy, Balanced    float64
			Precision, Recall, F1 []float64
			Support               []int
			Average               map[string][]float64
			Confusion             [][]int
			Top                   map[string]float64
			LogLoss               float64 `json:"log_loss"`
			Report                string
		}
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}
		r, err := score.Score(classes, predictions, top)
		if err != nil {
			t.Fatal(err)
		}
		same := func(what string, got, want float64) {
			if !(math.Abs(got-want) <= 1e-9) {
				t.Errorf("case %d: %s %v, scikit-learn %v", i, what, got, want)
			}
		}
		same("accuracy", r.Accuracy, want.Accuracy)
		same("balanced accuracy", r.Balanced, want.Balanced)
		same("log loss", r.Calibration.NLL, want.LogLoss)
		for k, c := range r.PerClass {
			same(c.Class+" precision", c.Precision, want.Precision[k])
			same(c.Class+" recall", c.Recall, want.Recall[k])
			same(c.Class+" F1", c.F1, want.F1[k])
			same(c.Class+" support", float64(c.Support), float64(want.Support[k]))
			if !slices.Equal(r.Confusion[k], want.Confusion[k]) {
				t.Errorf("case %d: confusion %v, scikit-learn %v", i, r.Confusion[k], want.Confusion[k])
			}
		}
		for name, a := range map[string]score.Average{"macro": r.Macro, "weighted": r.Weighted} {
			for k, v := range []float64{a.Precision, a.Recall, a.F1} {
				same(fmt.Sprint(name, k), v, want.Average[name][k])
			}
		}
		for k, v := range want.Top {
			same("top "+k, r.TopK[int(k[0]-'0')], v)
		}
		if got := r.Report(); got != want.Report {
			t.Errorf("case %d: report\n%s\nscikit-learn's\n%s", i, got, want.Report)
		}
	}
}

// A hand-computed case: two bins, their gaps, the error they make.
func TestCalibration(t *testing.T) {
	p := func(conf float64, right bool) score.Prediction {
		x := score.Prediction{Probs: []float64{conf, 1 - conf}}
		if !right {
			x.True = 1
		}
		return x
	}
	r, err := score.Score([]string{"a", "b"}, []score.Prediction{p(0.9, true), p(0.9, false), p(0.7, true), p(0.7, true)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// 0.9: two images, half right: gap 0.4; 0.7: both right: gap 0.3.
	if c := r.Calibration; math.Abs(c.ECE-0.35) > 1e-12 || math.Abs(c.MCE-0.4) > 1e-12 || math.Abs(c.Brier-(0.02+1.62+0.18+0.18)/4) > 1e-12 {
		t.Errorf("%+v", c)
	}
	if c, err := score.Score([]string{"a", "b"}, []score.Prediction{p(1, true), p(0, true)}, nil); err != nil || c.Calibration.Bins[14].Count != 2 || math.IsInf(c.Calibration.NLL, 0) {
		t.Errorf("%v %v", c, err)
	}
}

func TestBadPredictions(t *testing.T) {
	for want, f := range map[string]func() ([]string, []score.Prediction){
		"no classes":     func() ([]string, []score.Prediction) { return nil, draw(1, 2, 1, false) },
		"2 shares for 3": func() ([]string, []score.Prediction) { return names(3), draw(1, 2, 1, false) },
		"class 7 of 2":   func() ([]string, []score.Prediction) { p := draw(1, 2, 1, false); p[0].True = 7; return names(2), p },
		"not a number": func() ([]string, []score.Prediction) {
			p := draw(1, 2, 1, false)
			p[0].Probs[1] = math.NaN()
			return names(2), p
		},
		"has a known class":  func() ([]string, []score.Prediction) { p := draw(1, 2, 1, false); p[0].True = -1; return names(2), p },
		"none of 0 images h": func() ([]string, []score.Prediction) { return names(2), nil },
	} {
		if _, err := score.Score(first(f()), second(f()), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func first(c []string, _ []score.Prediction) []string            { return c }
func second(_ []string, p []score.Prediction) []score.Prediction { return p }

var about = plot.About{Model: "resnet18, epoch 12, 224 px", Data: "facades/test", When: time.Date(2026, 11, 29, 22, 20, 0, 0, time.UTC)}

// pngs are the raster charts among the files; beside each is its SVG.
func pngs(files []string) (out []string) {
	for _, f := range files {
		if name, ok := strings.CutSuffix(f, ".png"); ok && slices.Contains(files, name+".svg") {
			out = append(out, f)
		}
	}
	return out
}

// learned are predictions of a model that mostly knows better: right in about
// 85 of 100 cases, wrong mostly in favour of a neighbour.
func learned(classes, n int) []score.Prediction {
	r := rand.New(rand.NewPCG(7, uint64(classes)))
	out := make([]score.Prediction, n)
	for i := range out {
		p := score.Prediction{Path: fmt.Sprintf("%d.jpg", i), True: i % classes, Probs: make([]float64, classes)}
		sum := 0.0
		for k := range p.Probs {
			v := r.NormFloat64() * 1.1
			switch k {
			case p.True:
				v += 4 - 2.5*float64(p.True%5)/5
			case (p.True + 1) % classes:
				v += 1.2
			}
			p.Probs[k] = math.Exp(v)
			sum += p.Probs[k]
		}
		for k := range p.Probs {
			p.Probs[k] /= sum
		}
		out[i] = p
	}
	return out
}

// Charts of few and of many classes have the pages that they need, none larger
// than a page; with ATELIER_PLOTS=folder they stay to be looked at.
func TestChartsOfFewAndManyClasses(t *testing.T) {
	h := &score.History{}
	for e := range 30 {
		x := float64(e)
		h.TrainLoss, h.ValLoss = append(h.TrainLoss, 1.6*math.Exp(-x/7)+0.02), append(h.ValLoss, 1.5*math.Exp(-x/5)+0.3+0.012*x)
		h.TrainAcc, h.ValAcc = append(h.TrainAcc, 1-0.8*math.Exp(-x/6)), append(h.ValAcc, 0.86-0.6*math.Exp(-x/5))
	}
	for _, classes := range []int{2, 5, 12, 30} {
		r, err := score.Score(names(classes), learned(classes, 40*classes), []int{1, 3, 5})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if to := os.Getenv("ATELIER_PLOTS"); to != "" {
			dir = filepath.Join(to, fmt.Sprintf("evaluation_%d", classes))
		}
		files, err := r.WriteCharts(dir, h, about)
		if err != nil {
			t.Fatal(err)
		}
		if own := slices.Contains(files, "confusion_matrix_normalized.png"); own != (classes > 12) {
			t.Errorf("%d classes: a page of its own for the normalized matrix: %t", classes, own)
		}
		for _, name := range pngs(files) {
			f, err := os.Open(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			c, err := png.DecodeConfig(f)
			f.Close()
			if err != nil || c.Width > plot.MaxSide || c.Height > plot.MaxSide {
				t.Errorf("%d classes: %s: %d x %d pixels (%v)", classes, name, c.Width, c.Height, err)
			}
		}
	}
}

// Every chart opens; the document comes back as it was written.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	r, err := score.Score(names(5), draw(3, 5, 200, false), []int{1, 3, 5})
	if err != nil {
		t.Fatal(err)
	}
	h := &score.History{TrainLoss: []float64{2, 1, 0.5}, ValLoss: []float64{2, 1.2, 1}, TrainAcc: []float64{0.2, 0.5, 0.8}, ValAcc: []float64{0.2, 0.4, 0.6}}
	files, err := r.WriteCharts(dir, h, about)
	if err != nil || !slices.Equal(pngs(files), []string{"confusion_matrix.png", "class_accuracy.png", "per_class_metrics.png", "comprehensive_analysis.png", "train_history.png"}) {
		t.Fatal(files, err)
	}
	for _, name := range pngs(files) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(f); err != nil {
			t.Error(name, err)
		}
		f.Close()
	}
	b, err := json.Marshal(r.Document(map[string]any{"architecture": "resnet18"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	d, err := score.ReadDocument(bytes.NewReader(b))
	if err != nil || d.Accuracy != r.Accuracy || len(d.Predictions) != 200 || d.TopK["top_3"] != r.TopK[3] || d.Predictions[7].Probs[d.Classes[0]] != r.Predictions[7].Probs[0] {
		t.Errorf("%v %v", d, err)
	}
	s := r.Summary([][2]string{{"model", "resnet18"}})
	for _, want := range []string{"resnet18", "top-3 accuracy", "Most frequent confusions", r.Mistakes()[0].Path} {
		if !strings.Contains(s, want) {
			t.Errorf("summary lacks %q:\n%s", want, s)
		}
	}
	if m := r.Mistakes(); len(m) != r.Samples-r.Correct || m[0].Confidence() < m[len(m)-1].Confidence() {
		t.Errorf("%d mistakes of %d images, %d right", len(m), r.Samples, r.Correct)
	}
}

// Many classes: the work and the files go with the images, not with the square
// of the classes, and every chart is one that a viewer opens.
func TestManyClasses(t *testing.T) {
	const classes, images = 1500, 1600
	all := make([]string, classes)
	for i := range all {
		all[i] = fmt.Sprintf("class_%04d", i)
	}
	predictions := draw(4, classes, images, false)
	for i := range predictions {
		predictions[i].True = i % classes
		if i < 60 { // most images of the first two classes are taken for one another
			predictions[i].True = i % 2
			clear(predictions[i].Probs)
			predictions[i].Probs[1-i%2] = 1
		}
	}
	began := time.Now()
	r, err := score.Score(all, predictions, []int{1, 5})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(r.Document(nil, nil), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 4<<20 {
		t.Errorf("evaluation_results.json has %d bytes for %d images", len(b), images)
	}
	d, err := score.ReadDocument(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(d.PerClass) != classes || len(d.Predictions) != images || d.Confusion != nil || len(d.Confused) != 100 ||
		d.Confused[0] != (score.Confused{True: all[0], Predicted: all[1], Images: 30}) {
		t.Errorf("%d classes, %d predictions, most confused %v", len(d.PerClass), len(d.Predictions), d.Confused[:min(2, len(d.Confused))])
	}
	for i, row := range d.Predictions {
		p := predictions[i]
		if len(row.Probs) < 10 || len(row.Probs) > 11 || row.Probs[all[p.True]] != p.Probs[p.True] || row.Probs[row.Predicted] != row.Confidence {
			t.Fatalf("row %d: %d shares", i, len(row.Probs))
		}
	}
	dir := t.TempDir()
	files, err := r.WriteCharts(dir, nil, about)
	if err != nil {
		t.Fatal(err)
	}
	if to := os.Getenv("ATELIER_PLOTS"); to != "" {
		to = filepath.Join(to, "many")
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		r.WriteCharts(to, nil, about)
	}
	for _, name := range pngs(files) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := png.DecodeConfig(f)
		f.Close()
		if err != nil || c.Width > plot.MaxSide || c.Height > plot.MaxSide {
			t.Errorf("%s: %d x %d pixels (%v)", name, c.Width, c.Height, err)
		}
	}
	if s := r.Summary(nil); !strings.Contains(s, "30 x  class_0000 taken for class_0001") {
		t.Error("the summary lacks the most confused classes")
	}
	t.Logf("%s, %d bytes of JSON", time.Since(began), len(b))
}

func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(`{"class_names":["a"],"predictions":[{"image_path":"x","confidence":1}]}`))
	f.Add([]byte(`{"class_names":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := score.ReadDocument(bytes.NewReader(b)); err == nil && len(d.Classes) == 0 {
			t.Error("a document without classes")
		}
	})
}
