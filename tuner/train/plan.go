package train

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"

	"atelier/common/dataset"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/session"
)

// Plan is a training that is ready to begin.
type Plan struct {
	Config   *setting.Config
	Settings settings.Settings
	Training []byte // the trainer's settings, JSON
	Seed     uint64
	Device   string
	Threads  int    // of the CPU
	BaseDir  string // relative data paths start here; absolute
	CacheDir string // of packed image sets; "" = the user's
	Folder   string // for what comes of it; absolute
	Notes    []string

	Data []Part // train, validation and, if there is one, test

	devices     []string // of the members that this machine begins with; nil: one trainer
	again       bool     // Folder holds this training's beginning
	resumeFile  string   // checkpoint to go on from; "" = from the start
	resumeEpoch int
	addresses   string // of the cluster; "" = this machine, or not recorded
	trackedRun  string // of MLflow, to go on with
	requestID   string // the sweep is asked for by it; "" = it is trained on this machine
	sweep       string // that trains it on a cluster, once there is one
}

// Part is one image folder of a training.
type Part struct {
	Name   string // train, validation, test
	Dir    string
	Folder *dataset.Folder // nil: not looked at
}

// NewPlan checks a configuration as a whole. base is the folder relative paths
// start from, out the folder for the results, "" for checkpoints_dir/<name>.
// Unless remote is said the data folders must be there.
func NewPlan(c *setting.Config, base, out string, remote bool) (*Plan, error) {
	p := &Plan{Config: c, BaseDir: base, Device: c.String(keyDevice), Threads: int(c.Float(keyThreads)), Seed: seedOf(c.Get(keySeed).Data)}
	if p.Threads == 0 {
		p.Threads = runtime.NumCPU()
	}
	if dir := c.String(keyCache); dir != "" {
		p.CacheDir = setting.Absolute(base, dir)
	}
	if err := p.chooseTest(remote); err != nil {
		return nil, err
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	if err := NeedsWeights(c, KeyFreeze, KeyWeights); err != nil {
		return nil, err
	}
	if out == "" {
		out = filepath.Join(c.String(keyCheckpoints), FolderName(p.Settings))
	}
	p.Folder = setting.Absolute(base, out)
	p.Data = []Part{{Name: "train", Dir: p.Settings.Train}, {Name: "validation", Dir: p.Settings.Validation}}
	if p.hasTest() {
		p.Data = append(p.Data, Part{Name: "test", Dir: p.Settings.Test})
	}
	if remote {
		return p, nil
	}
	return p, p.lookAtData()
}

// settle makes the trainer's settings of the configuration.
func (p *Plan) settle() (err error) {
	p.Training = p.Config.JSON(func(key string) bool { return IsTraining(key) && (key != keySeed || p.Seed <= settings.MaxSeed) })
	if p.Settings, err = settings.Parse(p.Training, nil, p.BaseDir); err != nil {
		return setting.Nowhere(err)
	}
	return nil
}

// NeedsWeights refuses to freeze features that nobody has trained. A training
// that is resumed has what it began with.
func NeedsWeights(c *setting.Config, freeze, weights string) error {
	v := c.Get(freeze)
	if v.Data != true || v.Origin == setting.Resumed || c.Get(weights).Data != nil {
		return nil
	}
	return setting.Faults{{Where: v.Where, Key: freeze, Origin: v.Origin,
		Message: "there are no features to freeze in a model from scratch: start from published weights, --weights resnet18 (atelier weights pull resnet18), or from a file"}}
}

// published is a file of published weights, which carries its hash in its name.
var published = regexp.MustCompile(`^(.+-[0-9a-f]{8,64})\.(pth|safetensors)$`)

// Start is what the model starts from, for people: "from scratch", or "from"
// published weights or a file.
func (p *Plan) Start() string { return StartOf(p.Config.Get(KeyWeights)) }

// StartOf is what a training with these weights starts from.
func StartOf(weights setting.Value) string {
	if weights.Data == nil {
		return "from scratch"
	}
	text := weights.Text()
	if m := published.FindStringSubmatch(filepath.Base(text)); m != nil {
		text = m[1]
	}
	return "from " + text
}

// ResumedAfter is the epoch after which the training is resumed; 0 = it begins.
func (p *Plan) ResumedAfter() int { return p.resumeEpoch }

// TestDir is the folder that the best model is tested on; "" = none.
func (p *Plan) TestDir() string {
	if !p.hasTest() {
		return ""
	}
	return p.Settings.Test
}

// FolderName is the runbook's name of a training's folder.
func FolderName(s settings.Settings) string {
	return fmt.Sprintf("%s_ep%d_bs%d_lr%s", s.Model, s.Epochs, s.BatchSize, strconv.FormatFloat(s.LR, 'g', -1, 64))
}

// seedOf is a seed as any 64-bit number.
func seedOf(v any) uint64 {
	switch n := v.(type) {
	case int64:
		return uint64(n)
	case uint64:
		return n
	}
	return 0
}

func (p *Plan) hasTest() bool { return p.Config.Get("data.test").Data != nil }

// chooseTest drops a test folder that nobody asked for by name and that is not
// there. A cluster's training is tested here as well.
func (p *Plan) chooseTest(remote bool) error {
	v := p.Config.Get("data.test")
	if v.Data == nil {
		return nil
	}
	dir := setting.Absolute(p.BaseDir, v.Text())
	if _, err := os.Stat(dir); err == nil || v.Origin > setting.Resumed && !remote {
		return nil // lookAtData says what is wrong with it
	}
	if v.Origin != setting.Default {
		p.Notes = append(p.Notes, fmt.Sprintf("%s: data.test: there is no folder %s: the model is not tested", v.Source(), dir))
	}
	return p.Config.Set("data.test", nil, v.Origin, v.Where)
}

// lookAtData lists the image folders: what is missing or differs is said
// before a trainer starts.
func (p *Plan) lookAtData() error {
	var faults []error
	for i := range p.Data {
		part := &p.Data[i]
		f, err := ListImages(part.Name, part.Dir, p.Config.Get("data."+part.Name), p.Data[0].Folder)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		part.Folder = f
		p.Notes = append(p.Notes, f.Notes()...)
	}
	return errors.Join(faults...)
}

// ListImages lists the images of a part, train, validation or test, in the folder
// that v names; train are those of the training, nil while they are not known. An
// error says what a person can do about it.
func ListImages(part, dir string, v setting.Value, train *dataset.Folder) (*dataset.Folder, error) {
	list := dataset.ListHeldOut
	if part == "train" {
		list = dataset.List
	}
	f, err := list(dir)
	if _, stat := os.Stat(dir); err != nil && errors.Is(stat, os.ErrNotExist) {
		err = fmt.Errorf("folder %s does not exist: name it with --%s DIR, or --data DIR for a folder with train/ and validation/ in it (atelier data synth DIR draws one)", dir, part)
	}
	if err == nil && train == nil && len(f.Classes) == 1 {
		err = fmt.Errorf("%s has one class (%s): a classifier needs two", dir, f.Classes[0])
	}
	if err == nil && train != nil {
		err = dataset.SameClasses(train.Dir, train.Classes, dir, f.Classes)
	}
	if err != nil {
		return nil, fmt.Errorf("data.%s (%s): %w", part, v.Source(), err)
	}
	return f, nil
}

// saved is resume/run.json: what a training was told, to go on with the same.
type saved struct {
	session.Head
	Threads int          `json:"threads"`
	Start   string       `json:"start,omitempty"` // for people: from scratch, or from which weights
	Values  []savedValue `json:"values"`
	Tracked string       `json:"mlflow_run,omitempty"`
	Request string       `json:"request_id,omitempty"`
	Sweep   string       `json:"sweep,omitempty"`
	Cluster string       `json:"addresses,omitempty"` // of the cluster, as it was given
}

type savedValue struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Source string `json:"source"`
}
