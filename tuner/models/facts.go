package models

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"atelier/common/checkpoint"
	"atelier/tuner/train"
	"atelier/tuner/tune/report"
)

// memory is what was read from a file, and which version of it.
type memory[T any] struct {
	size    int64
	written time.Time
	value   T
}

// remembered reads a file unless it is as it was when it was read last. A file
// that is not there gives the zero value.
func remembered[T any](f *Finder, known *map[string]memory[T], path string, read func(string) T) (value T) {
	info, err := os.Stat(path)
	if err != nil {
		return value
	}
	f.mu.Lock()
	m, ok := (*known)[path]
	f.mu.Unlock()
	if ok && m.size == info.Size() && m.written.Equal(info.ModTime()) {
		return m.value
	}
	value = read(path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if *known == nil {
		*known = map[string]memory[T]{}
	}
	(*known)[path] = memory[T]{info.Size(), info.ModTime(), value}
	return value
}

func (f *Finder) read(m Model) Facts { return remembered(f, &f.facts, m.Path, facts) }

// facts maps a file: tensors are not read.
func facts(path string) (x Facts) {
	file, err := checkpoint.Open(path)
	if err != nil {
		x.Fault = strings.TrimPrefix(err.Error(), fmt.Sprintf("open checkpoint %s: ", path))
		return x
	}
	defer file.Close()
	about, err := file.Model()
	if err != nil {
		x.Fault = err.Error()
		return x
	}
	if missing := file.Lacks(false); len(missing) > 0 {
		x.Fault = "it lacks its " + strings.Join(missing, " and ")
	}
	x.Architecture, x.Classes, x.ImageSize, x.Epoch = about.Arch, about.Classes, about.ImageSize, about.Epoch
	return x
}

// marks are accuracies as the records beside models have them.
type marks struct {
	test, best float64         // of the best model; NaN = not measured
	epochs     map[int]float64 // validation accuracy
	last       float64         // of the last epoch
}

// accuracy is read from the record beside a model: training_history.json of a
// training, trial.json of a tuning's trial.
func (f *Finder) accuracy(m Model) (value float64, of string) {
	dir := filepath.Dir(m.Path)
	var x marks
	if m.Trial > 0 {
		x = remembered(f, &f.marks, filepath.Join(dir, report.TrialFile), trialMarks)
	} else {
		x = remembered(f, &f.marks, filepath.Join(dir, train.HistoryFile), historyMarks)
	}
	if x.epochs == nil { // there is no record
		return math.NaN(), ""
	}
	if m.best() {
		if !math.IsNaN(x.test) {
			return x.test, Test
		}
		return x.best, Validation
	}
	value = x.last
	if v, ok := x.epochs[m.Epoch]; ok {
		value = v
	}
	return value, Validation
}

func historyMarks(path string) marks {
	x := marks{test: math.NaN(), best: math.NaN(), last: math.NaN()}
	h, err := train.ReadHistory(path)
	if err != nil {
		return x
	}
	x.epochs, x.best = map[int]float64{}, float64(h.BestValAcc)
	for i, e := range h.Epochs {
		x.epochs[e] = float64(h.ValAcc[i])
		x.last = float64(h.ValAcc[i])
	}
	if h.TestImages > 0 {
		x.test = float64(h.TestAcc)
	}
	return x
}

func trialMarks(path string) marks {
	x := marks{test: math.NaN(), best: math.NaN(), last: math.NaN()}
	b, err := os.ReadFile(path)
	if err != nil {
		return x
	}
	var record struct {
		Metrics map[string]*float64 `json:"metrics"` // at the best epoch
	}
	if json.Unmarshal(b, &record) != nil {
		return x
	}
	x.epochs = map[int]float64{}
	if v := record.Metrics["val_acc"]; v != nil {
		x.best, x.last = *v, *v
	}
	return x
}

// trialNumber is that of a folder trials/trial_NNNN, 0 of any other.
func trialNumber(dir string) int {
	parent, name := filepath.Split(dir)
	text, ok := strings.CutPrefix(name, "trial_")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 1 || filepath.Base(parent) != "trials" {
		return 0
	}
	return n
}
