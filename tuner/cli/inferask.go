package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/common/terminal"
	"atelier/tuner/infer"
	"atelier/tuner/models"

	ucli "github.com/urfave/cli/v2"
)

const (
	keyCheckpoint = "model.checkpoint"
	keyImages     = "paths.image_dir"
)

// trainedModels finds the models of trainings and tunings below the working folder, the
// best first; those that cannot be asked are left out.
func (e *Env) trainedModels() []models.Model {
	found, _ := (&models.Finder{Dir: e.Dir, Named: models.Folders}).Ranked() // a folder that is not there has none
	return slices.DeleteFunc(found, func(m models.Model) bool { return m.Fault != "" })
}

// trainedHere lists the best models of trainings and tunings below the working
// folder, to be put behind an error.
func (e *Env) trainedHere() string {
	var names []string
	for _, m := range e.trainedModels() {
		names = append(names, m.ID+inBrackets(m.Text()))
	}
	if len(names) == 0 {
		return ""
	}
	return "; there is " + strings.Join(names[:min(3, len(names))], ", ")
}

// inferSubject settles the model and the folder of images: where none is given it
// asks a person, and gives others the command to type; a folder in place of a
// model means the best model in it.
func (e *Env) inferSubject(c *ucli.Context, q *questions, conf *setting.Config) error {
	asks := e.Ask && !c.Bool("quiet")
	if conf.String(keyCheckpoint) == "" {
		found := e.trainedModels()
		if !asks || len(found) == 0 {
			return usage("infer: no model is given: give one with --checkpoint, or %s in %s%s", keyCheckpoint, infer.Document.File, e.inferLine(found, conf))
		}
		if err := q.trainedModel(c.Context, found, conf); err != nil {
			return err
		}
	}
	m, err := e.bestIn(c, conf)
	if err != nil {
		return err
	}
	if err := e.inferImages(c, q, conf, m); err != nil {
		return err
	}
	e.warnOfTrained(c, conf, m)
	return nil
}

// inferLine is the next command to type where no model is given.
func (e *Env) inferLine(found []models.Model, conf *setting.Config) string {
	if len(found) == 0 {
		return fmt.Sprintf("; none is in %s yet: atelier train makes one", strings.Join(models.Folders, " or "))
	}
	best := found[0]
	text := fmt.Sprintf(". Next: atelier infer --checkpoint %s", quoted(best.ID))
	if v := conf.Get(keyImages); v.Origin == setting.Default {
		if _, err := os.Stat(e.path(v.Text())); err != nil {
			images := "DIR"
			if all := e.imagesFor(best); len(all) > 0 {
				images = quoted(all[0].name)
			}
			text += " --image-dir " + images
		}
	}
	return text + inBrackets(best.Text())
}

// trainedModel asks for one of the models, by number or path; nothing typed takes
// the best.
func (q *questions) trainedModel(ctx context.Context, found []models.Model, conf *setting.Config) error {
	var options []option
	for _, m := range found {
		about := []string{m.Architecture, fmt.Sprintf("%d px", m.ImageSize), m.Text(), m.Written.Format("2006-01-02")}
		options = append(options, option{m.ID, strings.Join(slices.DeleteFunc(about, func(s string) bool { return s == "" }), ", ")})
	}
	name, err := q.pick(ctx, "Model", "Models here, the best first:", options, func(name string) string {
		if _, err := os.Stat(q.e.path(name)); err != nil {
			return "There is no file " + name + "."
		}
		return ""
	})
	if err != nil {
		return err
	}
	return conf.Set(keyCheckpoint, name, setting.Prompt, "prompt")
}

// bestIn puts the best model of a folder in the folder's place, and prints that. The
// model it returns has no classes where the file is not one of this machine.
func (e *Env) bestIn(c *ucli.Context, conf *setting.Config) (m models.Model, err error) {
	v := conf.Get(keyCheckpoint)
	info, err := os.Stat(e.path(v.Text()))
	if err != nil {
		return m, nil // of the cluster, or missing, which is an error where it is opened
	}
	if !info.IsDir() {
		if found, _ := (&models.Finder{Dir: e.Dir, Named: []string{e.path(v.Text())}}).Ranked(); len(found) > 0 {
			m = found[0]
		}
		return m, nil
	}
	if m, err = models.Best(e.Dir, e.path(v.Text())); err != nil {
		return m, usage("infer: --checkpoint %s is a folder: %s%s", v.Text(), err, e.trainedHere())
	}
	if !c.Bool("quiet") {
		e.say("%s is a folder: taking %s%s", v.Text(), m.ID, inBrackets(m.Text()))
	}
	return m, conf.Set(keyCheckpoint, m.ID, v.Origin, "the best model in "+v.Text())
}

// inferImages settles the folder of images where none is given and the default is
// not there.
func (e *Env) inferImages(c *ucli.Context, q *questions, conf *setting.Config, m models.Model) error {
	v := conf.Get(keyImages)
	if v.Origin != setting.Default || conf.String("mode") == inference.ExplainSingle || e.distant(c) {
		return nil
	}
	if _, err := os.Stat(e.path(v.Text())); err == nil || e.evaluated(conf) {
		return nil
	}
	found := e.imagesFor(m)
	if len(found) == 0 {
		return nil // an error where images are listed
	}
	if !e.Ask || c.Bool("quiet") {
		return usage("infer: no folder of images is given, and %s is not there. Next: atelier infer --checkpoint %s --image-dir %s", v.Text(), quoted(conf.String(keyCheckpoint)), quoted(found[0].name))
	}
	name, err := q.pick(c.Context, "Folder of images", "Folders of images here:", found, func(name string) string {
		if info, err := os.Stat(e.path(name)); err != nil || !info.IsDir() {
			return "There is no folder " + name + "."
		}
		return ""
	})
	if err != nil {
		return err
	}
	return conf.Set(keyImages, name, setting.Prompt, "prompt")
}

// evaluated reports whether mistakes are to be explained of an evaluation that is
// there: it has the paths of its images.
func (e *Env) evaluated(conf *setting.Config) bool {
	dir, err := infer.OutputDir(conf, e.Dir, nil)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, inference.ResultsFile))
	}
	return err == nil && conf.String("mode") == inference.ExplainWrong
}

// option is what a question offers.
type option struct{ name, about string }

const mostOffered = 9

// offer prints one of the options. Where both do not fit beside each other on a terminal, what it is goes below.
func (e *Env) offer(number int, o option) {
	line := fmt.Sprintf("  %2d  %s  %s", number, o.name, o.about)
	if !e.Live || terminal.Columns(line) <= e.Width() {
		e.say("%s", line)
		return
	}
	e.say("  %2d  %s", number, o.name)
	for _, l := range terminal.Fold(o.about, e.Width()-6) {
		e.say("      %s", l)
	}
}

// pick asks for one of several options, by number, or for another name, which
// fault refuses with a reason; nothing typed takes the first.
func (q *questions) pick(ctx context.Context, what, title string, options []option, fault func(name string) string) (string, error) {
	options = options[:min(len(options), mostOffered)]
	question := what + ": "
	switch len(options) {
	case 0:
	case 1:
		question = fmt.Sprintf("%s [%s: %s]: ", what, options[0].name, options[0].about)
	default:
		q.e.say("%s", title)
		for i, o := range options {
			q.e.offer(i+1, o)
		}
		question = fmt.Sprintf("%s, by number or path [1]: ", what)
	}
	for {
		answer, err := q.ask(ctx, question)
		switch {
		case err != nil:
			return "", err
		case answer == "" && len(options) > 0:
			return options[0].name, nil
		case answer == "":
			continue
		}
		if n, err := setting.Whole(answer); err == nil && n >= 1 && n <= int64(len(options)) {
			return options[n-1].name, nil
		}
		text := fault(answer)
		if text == "" {
			return answer, nil
		}
		q.e.say("%s", text)
	}
}
