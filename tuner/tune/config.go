package tune

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"atelier/common/setting"
	"atelier/tuner/sweep"
	"atelier/tuner/train"

	"go.yaml.in/yaml/v3"
)

// Config is the configuration of a tuning.
type Config struct {
	*setting.Config
	below map[string]setting.Value // image folders of the training configuration, by key
}

// New is a configuration of all defaults.
func New() *Config {
	return &Config{Config: setting.New(Document.Table), below: map[string]setting.Value{}}
}

// block is a part of the configuration that is no value.
func (c *Config) block(name string) *yaml.Node { return c.Get(name).Block }

// ReadTraining takes the trainer's settings of a training configuration: what
// it says is the ground that the tuning's own file stands on.
func (c *Config) ReadTraining(name string, text []byte) error {
	t := train.New()
	t.Home = c.Home
	if err := t.ReadFile(name, text); err != nil {
		return err
	}
	for _, v := range t.All() {
		key := v.Key
		switch {
		case v.Origin != setting.File || key == KeySeed:
			continue
		case settingOfTrials(key):
			key = trainingPrefix + key
		case key == KeyTrain || key == KeyValidation:
			c.below[key] = v
			continue
		case key != KeyModel:
			continue
		}
		if err := c.Set(key, v.Data, setting.File, v.Where); err != nil {
			return err
		}
	}
	return nil
}

// images is an image folder: the tuning's own, else that of the training
// configuration, else where data preparation puts them.
func (c *Config) images(key string) setting.Value {
	if v := c.Get(key); v.Data != nil {
		return v
	}
	if v := c.below[key]; v.Data != nil {
		return v
	}
	return train.New().Get(key)
}

// ReadFile takes a tuning configuration. The error lists every fault with its
// line.
func (c *Config) ReadFile(name string, text []byte) error {
	var faults []error
	if err := c.Config.ReadFile(name, text); err != nil {
		faults = append(faults, err)
	}
	bad := func(n *yaml.Node, key, message string) {
		faults = append(faults, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, n.Line), Key: key, Message: message, Origin: setting.File}})
	}
	if v := c.Get(blockTrainer); v.Origin > setting.Default && clone(v.Block).Kind != yaml.MappingNode {
		bad(v.Block, blockTrainer, "want keys with values, such as {epoch_seconds: 0.5}")
	}
	// The space and the stopping rule alone, on their own lines, as a spec of any
	// method.
	only, spaced, key := onlyBlocks(text)
	if key != nil {
		bad(key, key.Value, "write it on lines of its own")
	} else if only != "" {
		if !spaced {
			only += "\nspace: {lr: {type: float, low: 0, high: 1}}"
		}
		epochs := c.Get(KeyEpochs).Text()
		if n := member(c.block(blockStopping), "max_epochs"); n != nil {
			epochs = n.Value // the plan compares them
		}
		only += "\nsearch_method: random\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\ntraining: {epochs: " + epochs + "}\n"
		if _, err := sweep.Parse(name, []byte(only)); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// onlyBlocks blanks all lines of a file but those of space and stopping; "" if
// it has neither. Where one shares its line with another key, that is returned.
func onlyBlocks(text []byte) (only string, spaced bool, shared *yaml.Node) {
	var doc yaml.Node
	if !parsed(text, &doc) || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return "", false, nil // the reader of keys says what is wrong
	}
	lines := strings.Split(string(text), "\n")
	kept := make([]string, len(lines))
	any := false
	root := doc.Content[0].Content
	for i := 0; i+1 < len(root); i += 2 {
		key, last := root[i], len(lines)
		if key.Value != blockSpace && key.Value != blockStopping {
			continue
		}
		if i+2 < len(root) {
			last = root[i+2].Line - 1
		}
		if last < key.Line || i > 0 && root[i-2].Line == key.Line || doc.Content[0].Style == yaml.FlowStyle {
			return "", false, key
		}
		any, spaced = true, spaced || key.Value == blockSpace
		copy(kept[key.Line-1:last], lines[key.Line-1:last])
	}
	if !any {
		return "", false, nil
	}
	return strings.Join(kept, "\n"), spaced, nil
}

// parsed reads YAML. The library may panic on hostile text.
func parsed(text []byte, doc *yaml.Node) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return yaml.Unmarshal(text, doc) == nil
}

// Override takes KEY=VALUE of the command line: a key, a training setting by
// its bare name, or a part of a block such as space.lr.high.
func (c *Config) Override(key, text string) error {
	where := "--set " + key
	if name, path, ok := strings.Cut(key, "."); ok && c.block(name) != nil {
		return c.overrideBlock(name, path, text, where)
	}
	if !c.Table.Has(key) && c.Table.Has(trainingPrefix+key) {
		key = trainingPrefix + key
	}
	return c.SetText(key, text, setting.Flag, where)
}

// typedNode is what a person typed for a part of a block: {keys: with values},
// or a value as every --set takes it.
func typedNode(text string) (*yaml.Node, error) {
	if !strings.HasPrefix(text, "{") {
		v, err := setting.Parse(text)
		if err != nil {
			return nil, err
		}
		value := &yaml.Node{}
		return value, value.Encode(v)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) != 1 || commented(&doc) {
		return nil, fmt.Errorf("%.60q is no YAML value", text)
	}
	return doc.Content[0], nil
}

// commented reports whether YAML has cut a comment off.
func commented(n *yaml.Node) bool {
	return n.HeadComment != "" || n.LineComment != "" || n.FootComment != "" || slices.ContainsFunc(n.Content, commented)
}

func (c *Config) overrideBlock(name, path, text, where string) error {
	value, err := typedNode(text)
	if err != nil {
		return setting.Fault{Where: where, Message: err.Error(), Origin: setting.Flag}
	}
	at := clone(c.block(name))
	if at.Kind != yaml.MappingNode {
		at = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	}
	c.SetBlock(name, at, setting.Flag, where)
	// Names of parameters may hold dots: the longest that is there counts, and
	// one field may follow.
	if i := strings.LastIndexByte(path, '.'); i > 0 && name == blockSpace {
		if inner := member(at, path[:i]); inner != nil && inner.Kind == yaml.MappingNode {
			put(inner, path[i+1:], value)
			return nil
		}
	}
	put(at, path, value)
	return nil
}

// given reports whether a key was said anywhere.
func (c *Config) given(key string) bool { return c.Get(key).Origin > setting.Default }
