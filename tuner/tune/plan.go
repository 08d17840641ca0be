package tune

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"atelier/common/dataset"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/common/spec"
	"atelier/tuner/sweep"
	"atelier/tuner/train"

	"go.yaml.in/yaml/v3"
)

// Plan is a tuning that is ready to begin.
type Plan struct {
	Config *Config
	Model  string
	Method string
	Folder string   // for what comes of it; absolute
	Notes  []string // what was decided on the way, for people

	base   string
	train  *dataset.Folder // nil: not looked at
	valid  *dataset.Folder
	space  *yaml.Node
	subset [2]int // images a class for training and validation; 0 = all
	again  *saved // of a tuning that is resumed
	trials int64  // that it shall have in all; 0 = as many as it has
}

// Wishes are what the command line says beside the configuration.
type Wishes struct {
	Base    string // folder that relative paths start from
	Out     string // folder of the results; "" = checkpoints_dir/<model>/<search_method>
	Quick   bool
	Distant bool // the workers see other files than this machine
}

// NewPlan checks a configuration as a whole.
func NewPlan(c *Config, w Wishes) (*Plan, error) {
	if w.Quick {
		if err := c.quicken(); err != nil {
			return nil, err
		}
	}
	p := &Plan{Config: c, Model: c.String(KeyModel), Method: c.String(KeyMethod), base: w.Base, space: clone(c.block(blockSpace))}
	if p.Method == "grid" {
		p.Method = "grid_search"
	}
	if p.Method == "grid_search" {
		points := int(c.Float(keyGridPoints))
		if notes := onGrid(p.space, points, w.Quick && !c.spoken(keyGridPoints)); len(notes) > 0 {
			p.Notes = append(p.Notes, "grid: "+strings.Join(notes, ", "))
		}
	}
	p.subset = [2]int{int(c.Float("subset.train")), int(c.Float("subset.validation"))}
	if w.Distant && p.subset != [2]int{} {
		return nil, fmt.Errorf("subset (%s): the workers are on other machines, where no part of the images can be picked: make a smaller data set, or set subset.train and subset.validation to null", c.source("subset.train", "subset.validation"))
	}
	out := w.Out
	if out == "" {
		out = filepath.Join(c.String(keyFolder), p.Model, p.Method)
	}
	p.Folder = setting.Absolute(w.Base, out)
	if c.String(keyTrainer) == "torch" {
		if err := p.checkTraining(w.Distant); err != nil {
			return nil, err
		}
	}
	_, spec, err := p.Spec(1)
	if err == nil && p.Method == "grid_search" {
		if size, ok := spec.Space.Size(); ok && uint64(spec.Budget.Trials) < size {
			p.Notes = append(p.Notes, fmt.Sprintf("grid: %d of its %d points (trials: %s)", spec.Budget.Trials, size, c.Get(KeyTrials).Source()))
		}
	}
	return p, err
}

// Base is the folder that relative paths start from.
func (p *Plan) Base() string { return p.base }

// Validation is the folder of validation images.
func (p *Plan) Validation() string {
	return setting.Absolute(p.base, p.Config.Images(KeyValidation).Text())
}

// quicken makes a tuning small where nobody asked for a size by flag or
// environment.
func (c *Config) quicken() error {
	for _, x := range [][2]string{{KeyTrials, "quick.trials"}, {KeyEpochs, "quick.epochs"}, {keyGridPoints, "quick.grid_points"},
		{"subset.train", "quick.subset.train"}, {"subset.validation", "quick.subset.validation"}} {
		if v := c.Get(x[1]); v.Data != nil {
			if err := c.Set(x[0], v.Data, setting.Prompt, "--quick"); err != nil {
				return err
			}
		}
	}
	return nil
}

// spoken reports whether a key was set by environment or flag.
func (c *Config) spoken(key string) bool { return c.Get(key).Origin > setting.Prompt }

func (c *Config) source(keys ...string) string {
	for _, k := range keys {
		if v := c.Get(k); v.Data != nil {
			return v.Source()
		}
	}
	return ""
}

// checkTraining looks at what the trainer would refuse only once it runs: settings
// that contradict one another, image folders. The space is checked with the spec.
func (p *Plan) checkTraining(distant bool) error {
	var faults []error
	training, err := p.training(p.Config.Images(KeyTrain).Text(), p.Config.Images(KeyValidation).Text())
	if err != nil {
		return err
	}
	if err := train.NeedsWeights(p.Config.Config, trainingPrefix+"freeze_features", KeyWeights); err != nil {
		return err
	}
	if _, err := settings.Parse(training, nil, p.base); err != nil {
		faults = append(faults, setting.Nowhere(err))
	}
	if distant || len(faults) > 0 {
		return errors.Join(faults...)
	}
	for _, x := range []struct {
		part string
		to   **dataset.Folder
	}{{"train", &p.train}, {"validation", &p.valid}} {
		v := p.Config.Images("data." + x.part)
		f, err := train.ListImages(x.part, setting.Absolute(p.base, v.Text()), v, p.train)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		*x.to = f
		p.Notes = append(p.Notes, f.Notes()...)
	}
	return errors.Join(faults...)
}

// training is the settings of all trials as JSON: what was said somewhere, and
// what a tuning always names.
func (p *Plan) training(train, validation string) ([]byte, error) {
	c := p.Config
	if c.String(keyTrainer) != "torch" {
		out := map[string]any{"model": p.Model, "epochs": c.Get(KeyEpochs).Data}
		if n := c.block(blockTrainer); n != nil {
			if err := n.Decode(&out); err != nil {
				return nil, fmt.Errorf("trainer_settings: %w", err)
			}
		}
		return json.Marshal(out) // keys in order
	}
	nested := c.JSON(func(key string) bool {
		name, ours := strings.CutPrefix(key, trainingPrefix)
		return ours && (c.given(key) || name == "epochs")
	})
	var inner struct {
		Training json.RawMessage `json:"training"`
	}
	if err := json.Unmarshal(nested, &inner); err != nil {
		return nil, err
	}
	head, err := json.Marshal(map[string]any{"model": p.Model, "data": map[string]string{"train": train, "validation": validation}})
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{bytes.TrimSuffix(head, []byte("}")), bytes.TrimPrefix(inner.Training, []byte("{"))}, []byte(",")), nil
}

// members are the slots that each trial needs at least.
func (p *Plan) members() (int64, error) {
	training, err := p.training("", "")
	if err != nil {
		return 0, err
	}
	g, err := settings.GroupOf(training)
	if err != nil {
		return 0, setting.Nowhere(err)
	}
	return int64(g.Min), nil
}

// Spec is the plan as a sweep, for people and the cluster alike, and as the
// parser understood it.
func (p *Plan) Spec(parallelism int64) ([]byte, *spec.Spec, error) {
	c := p.Config
	train, validation := c.Images(KeyTrain).Text(), c.Images(KeyValidation).Text()
	if p.subset[0] > 0 {
		train = p.subsetDir("train")
	}
	if p.subset[1] > 0 {
		validation = p.subsetDir("validation")
	}
	training, err := p.training(train, validation)
	if err != nil {
		return nil, nil, err
	}
	metric, direction := c.String(keyMetric), c.String(keyDirection)
	if direction == "" {
		direction = "minimize"
		if strings.Contains(metric, "acc") || strings.Contains(metric, "f1") {
			direction = "maximize"
		}
	}
	doc := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	add := func(key string, value any) {
		var n yaml.Node
		if err == nil {
			err = n.Encode(value)
			put(doc, key, &n)
		}
	}
	add("name", fmt.Sprintf("tune %s %s", p.Model, p.Method))
	add("search_method", p.Method)
	if p.Method == "bayesian" {
		add("algorithm", c.String(keyAlgorithm))
	}
	add("seed", c.Get(KeySeed).Data)
	add("objective", map[string]string{"metric": metric, "direction": direction})
	budget := map[string]any{}
	// A grid is tried out whole unless somebody said how many.
	if v := c.Get(KeyTrials); v.Data != nil && (p.Method != "grid_search" || c.given(KeyTrials)) {
		budget["trials"] = v.Data
	}
	if v := c.String(keyTime); v != "" {
		budget["time"] = v
	}
	if len(budget) > 0 || p.Method != "grid_search" {
		add("budget", budget)
	}
	add("parallelism", parallelism)
	add("trainer", c.String(keyTrainer))
	if err != nil {
		return nil, nil, err
	}
	if c.given(blockStopping) {
		put(doc, "stopping", clone(c.block(blockStopping)))
	}
	put(doc, "space", p.space)
	var t yaml.Node
	if err := yaml.Unmarshal(training, &t); err != nil {
		return nil, nil, err
	}
	put(doc, "training", setting.Unplaced(t.Content[0]))
	text, err := yaml.Marshal(doc)
	if err != nil {
		return nil, nil, err
	}
	spec, err := sweep.ParseToRun("the tuning", text)
	if err != nil {
		return text, nil, c.placed(doc, err)
	}
	return text, spec, nil
}
