package cli

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/tuner/data/layout"
	"atelier/tuner/models"
	"atelier/tuner/train"
	"atelier/tuner/tune"

	ucli "github.com/urfave/cli/v2"
)

// usedBy are the folders of images that a model's training or tuning used; zero
// where no record is beside the model.
func usedBy(m models.Model) (d train.Folders) {
	if m.Path == "" {
		return d
	}
	dir := filepath.Dir(m.Path)
	d, err := train.FoldersOf(dir)
	if err != nil { // a tuning has its models in trials/trial_NNNN/
		d, _ = tune.FoldersOf(filepath.Dir(filepath.Dir(dir)))
	}
	// A tuning has no test images; those of the split that it used are as unseen.
	if l, err := layout.Look(filepath.Dir(d.Train)); d.Test == "" && d.Train != "" && err == nil && l.Kind == layout.Split && filepath.Clean(l.Train) == filepath.Clean(d.Train) {
		d.Test = l.Test
	}
	return d
}

// trainedOn reports whether a folder contains images that a model was trained on:
// it is the training folder, above it or in it, or the class folders that the
// training's split was made of.
func trainedOn(dir string, d train.Folders) bool {
	if d.Train == "" {
		return false
	}
	within := func(a, b string) bool {
		rel, err := filepath.Rel(b, a)
		return err == nil && filepath.IsLocal(rel)
	}
	return within(d.Train, dir) || within(dir, d.Train) || within(d.Train, layout.SplitOf(dir))
}

// warnOfTrained warns where an accuracy is going to be that of images which the
// model has learned.
func (e *Env) warnOfTrained(c *ucli.Context, conf *setting.Config, m models.Model) {
	if mode := conf.String("mode"); mode != inference.Evaluate && mode != inference.ExplainWrong || e.distant(c) {
		return
	}
	d, images := usedBy(m), conf.String(keyImages)
	if !trainedOn(e.path(images), d) {
		return
	}
	text := ""
	if st, err := os.Stat(d.Test); d.Test != "" && err == nil && st.IsDir() {
		text = "; test images: --image-dir " + quoted(e.relative(d.Test))
	}
	e.say("warning: %s contains images that the model was trained on: the accuracy will be too high%s", images, text)
}

// imagesFor finds folders of images at or below the working folder: the test
// images of the model's own training first, then those of other splits, then
// others; where classes are known only folders that have them.
func (e *Env) imagesFor(m models.Model) (found []option) {
	used := usedBy(m)
	add := func(dir, about string) {
		name := e.relative(dir)
		if filepath.Clean(dir) == e.Dir {
			name = "."
		}
		if trainedOn(dir, used) {
			about += ", which the model was trained on"
		}
		if !slices.ContainsFunc(found, func(o option) bool { return o.name == name }) {
			found = append(found, option{name, about})
		}
	}
	unseen := func(l layout.Layout) {
		if l.Test != "" {
			add(l.Test, "test images of "+e.relative(l.Dir))
		} else {
			add(l.Validation, "validation images of "+e.relative(l.Dir))
		}
	}
	if st, err := os.Stat(used.Test); used.Test != "" && err == nil && st.IsDir() {
		add(used.Test, "test images of "+e.relative(filepath.Dir(used.Test)))
	} else if st, err := os.Stat(used.Validation); used.Validation != "" && err == nil && st.IsDir() {
		add(used.Validation, "validation images of "+e.relative(filepath.Dir(used.Validation)))
	}
	own := len(found)
	for _, l := range layout.Find(e.Dir) {
		if len(m.Classes) > 0 && !slices.ContainsFunc(l.Classes, func(c string) bool { return slices.Contains(m.Classes, c) }) {
			continue
		}
		switch l.Kind {
		case layout.Split:
			unseen(l)
		case layout.Classes:
			// The search leaves out the split that was made of them.
			if s, err := layout.Look(layout.SplitOf(l.Dir)); err == nil && s.Kind == layout.Split {
				unseen(s)
			}
			add(l.Dir, counted(l.Images, "image"))
		}
	}
	rank := func(o option) int {
		switch {
		case strings.HasPrefix(o.about, "test "):
			return 0
		case strings.HasSuffix(o.about, "trained on"):
			return 2
		}
		return 1
	}
	slices.SortStableFunc(found[own:], func(a, b option) int { return cmp.Compare(rank(a), rank(b)) })
	return found
}
