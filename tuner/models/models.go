// Package models finds the model files on this machine that trainings and
// tunings left, and ranks them by how well they did. It reads descriptions
// in files and loads no model.
package models

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"atelier/tuner/train"
)

// Folders are where trainings and tunings put their results.
var Folders = []string{"checkpoints", "checkpoints_tuning"}

// Where an accuracy was measured.
const (
	Test       = "test"
	Validation = "validation"
)

// Model is a model file.
type Model struct {
	ID      string // its path as given, or relative to the folder that was searched from, with slashes
	Path    string // absolute
	Group   string // the folder, as IDs are, of the training or tuning that it belongs to; "" = a file of its own
	Trial   int    // of a tuning; 0 = none
	Written time.Time
	Facts

	// Accuracy is in 0..1, NaN where none is known; Measured gives the images.
	Accuracy float64
	Measured string
}

// Facts are what a file contains about its model; what it lacks is zero.
type Facts struct {
	Architecture string
	Classes      []string
	ImageSize    int
	Epoch        int
	Fault        string // why the file cannot be asked; "" = no reason is known
}

// best reports whether this is the model that its training calls the best.
func (m *Model) best() bool { return path.Base(m.ID) == train.BestFile }

// Text is how good the model is, such as "test accuracy 79.4 %"; "" where
// that is not known.
func (m *Model) Text() string {
	if math.IsNaN(m.Accuracy) {
		return ""
	}
	return fmt.Sprintf("%s accuracy %.1f %%", m.Measured, 100*m.Accuracy)
}

// Finder looks for models, anew at each call: a training that ends shows up. A file
// is read once, until it is written anew. Its methods may be called
// at the same time.
type Finder struct {
	Dir   string   // relative paths start here
	Named []string // files and folders

	mu    sync.Mutex
	facts map[string]memory[Facts]
	marks map[string]memory[marks]
}

const (
	mostFound = 5000 // model files that are looked at
	mostTrial = 5    // models of one tuning that are listed
)

// All returns every model file by its path, without ranking and facts. A name
// that leads nowhere is an error beside what the others lead to.
func (f *Finder) All() ([]Model, error) {
	all, missing := f.walk()
	if len(missing) > 0 {
		return all, fmt.Errorf("there is no %s", strings.Join(missing, ", "))
	}
	return all, nil
}

// Ranked returns the models worth choosing among: the training or tuning with
// the best model first, and in it the best model first. Accuracies are those of
// test images where there were any, else of validation images; models without
// one come last, newest first. A training's last model is left out beside its
// best, and of a tuning the five best are listed; a file that was given itself is
// always.
func (f *Finder) Ranked() ([]Model, error) {
	all, err := f.All()
	all = slices.DeleteFunc(all, func(m Model) bool {
		if m.Group == "" || path.Base(m.ID) != train.FinalFile {
			return false
		}
		dir := path.Dir(m.ID)
		return slices.ContainsFunc(all, func(o Model) bool { return o.best() && path.Dir(o.ID) == dir })
	})
	for i := range all {
		all[i].Facts = f.read(all[i])
		all[i].Accuracy, all[i].Measured = f.accuracy(all[i])
	}
	slices.SortStableFunc(all, Better)
	return fewTrials(grouped(all)), err
}

// Better orders models: those that can be asked, then by accuracy, then the best
// of a training before its others, then the newest.
func Better(a, b Model) int {
	bit := func(v bool) int {
		if v {
			return 1
		}
		return 0
	}
	known := func(m Model) float64 {
		if math.IsNaN(m.Accuracy) {
			return -1
		}
		return m.Accuracy
	}
	return cmp.Or(bit(a.Fault != "")-bit(b.Fault != ""), cmp.Compare(known(b), known(a)), bit(b.best())-bit(a.best()), b.Written.Compare(a.Written), strings.Compare(a.ID, b.ID))
}

// grouped puts the models of a group beside its best, in an order that is
// otherwise kept.
func grouped(sorted []Model) (out []Model) {
	done := map[string]bool{}
	for i, m := range sorted {
		switch {
		case m.Group == "":
			out = append(out, m)
		case !done[m.Group]:
			done[m.Group] = true
			for _, o := range sorted[i:] {
				if o.Group == m.Group {
					out = append(out, o)
				}
			}
		}
	}
	return out
}

// fewTrials leaves the first models of each tuning.
func fewTrials(sorted []Model) []Model {
	listed := map[string]int{}
	return slices.DeleteFunc(sorted, func(m Model) bool {
		if m.Trial == 0 {
			return false
		}
		listed[m.Group]++
		return listed[m.Group] > mostTrial
	})
}

// walk finds the files given, and all model files below folders.
func (f *Finder) walk() (all []Model, missing []string) {
	seen := map[string]bool{}
	add := func(at string, info fs.FileInfo, group string, trial int) {
		if !seen[at] {
			seen[at] = true
			all = append(all, Model{ID: f.id(at), Path: at, Group: group, Trial: trial, Written: info.ModTime(), Accuracy: math.NaN()})
		}
	}
	for _, name := range f.Named {
		at := name
		if !filepath.IsAbs(at) {
			at = filepath.Join(f.Dir, at)
		}
		info, err := os.Stat(at)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		if !info.IsDir() {
			add(at, info, "", 0)
			continue
		}
		filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil // a folder that cannot be read hides its own models only
			case d.IsDir() && (d.Name() == "resume" || strings.HasPrefix(d.Name(), ".") && p != at):
				return fs.SkipDir
			case len(all) >= mostFound:
				return fs.SkipAll
			}
			if ext := filepath.Ext(p); !d.IsDir() && (ext == ".pth" || ext == ".safetensors") {
				if info, err := d.Info(); err == nil {
					group, trial := f.belongs(p)
					add(p, info, group, trial)
				}
			}
			return nil
		})
	}
	return all, missing
}

// id is a path as requests and people write it.
func (f *Finder) id(at string) string {
	if rel, err := filepath.Rel(f.Dir, at); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return at
}

// belongs is the folder of the training or tuning that a file is of: a tuning
// keeps its trials' models in trials/trial_NNNN/.
func (f *Finder) belongs(at string) (group string, trial int) {
	dir := filepath.Dir(at)
	if n := trialNumber(dir); n > 0 {
		return f.id(filepath.Dir(filepath.Dir(dir))), n
	}
	return f.id(dir), 0
}

// Best is the model to take where a person gave a folder: its best_model.pth,
// else the best one below it.
func Best(dir, folder string) (Model, error) {
	found, err := (&Finder{Dir: dir, Named: []string{folder}}).Ranked()
	if err != nil {
		return Model{}, err
	}
	if i := slices.IndexFunc(found, func(m Model) bool { return m.best() && filepath.Dir(m.Path) == filepath.Clean(absolute(dir, folder)) }); i >= 0 {
		return found[i], nil
	}
	if len(found) == 0 {
		return Model{}, errors.New("no model file (.pth, .safetensors) is in it or below it")
	}
	return found[0], nil
}

func absolute(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}
