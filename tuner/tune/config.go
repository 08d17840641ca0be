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

// blockNames are the parts of a file that hold what keys cannot: they are
// replaced as a whole, not merged.
var blockNames = []string{"space", "stopping", "trainer_settings"}

// DefaultSpace is searched where the file has none.
const DefaultSpace = `
lr:           {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
batch_size:   {type: categorical, choices: [16, 32, 64]}
optimizer:    {type: categorical, choices: [adam, sgd]}
momentum:     {type: float, low: 0.5, high: 0.99, when: {optimizer: [sgd]}}
weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
`

// Config is the configuration of a tuning.
type Config struct {
	*setting.Config
	blocks map[string]*yaml.Node    // by name; looked up only
	below  map[string]setting.Value // image folders of the training configuration, by key
}

// New is a configuration of all defaults.
func New() *Config {
	c := &Config{Config: setting.New(Keys(), near), blocks: map[string]*yaml.Node{}, below: map[string]setting.Value{}}
	c.blocks["space"] = parsed(DefaultSpace)
	return c
}

// parsed is a mapping that is known to be good.
func parsed(text string) *yaml.Node {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		panic(err)
	}
	return doc.Content[0]
}

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
	rest, found, err := cutBlocks(name, text)
	if err != nil {
		return err
	}
	var faults []error
	if err := c.Config.ReadFile(name, rest); err != nil {
		faults = append(faults, err)
	}
	if n := found["trainer_settings"].value; n != nil {
		if clone(n).Kind != yaml.MappingNode {
			faults = append(faults, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, n.Line), Key: "trainer_settings", Message: "want keys with values, such as {epoch_seconds: 0.5}", Origin: setting.File}})
		}
		c.blocks["trainer_settings"] = n
		delete(found, "trainer_settings")
	}
	if len(found) > 0 {
		// The blocks alone, on their own lines, as a spec of any method.
		only := keep(text, found)
		if _, spaced := found["space"]; !spaced {
			only += "\nspace: {lr: {type: float, low: 0, high: 1}}"
		}
		epochs := c.Get(KeyEpochs).Text()
		if n := child(found["stopping"].value, "max_epochs"); n != nil {
			epochs = n.Value // the plan compares them
		}
		only += "\nsearch_method: random\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\ntraining: {epochs: " + epochs + "}\n"
		if _, err := sweep.Parse(name, []byte(only)); err != nil {
			faults = append(faults, err)
		} else {
			for b, at := range found {
				c.blocks[b] = at.value
			}
		}
	}
	return errors.Join(faults...)
}

// block is one of blockNames in a file: its lines, from 1, and what it holds.
type block struct {
	first, last int
	value       *yaml.Node
}

// cutBlocks blanks the blocks of a file, so that the rest keeps its lines.
func cutBlocks(name string, text []byte) (rest []byte, found map[string]block, err error) {
	defer func() {
		if p := recover(); p != nil { // the library, on hostile text
			err = setting.Faults{{Where: name, Message: "not YAML", Origin: setting.File}}
		}
	}()
	found = map[string]block{}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return text, found, nil // the reader of keys says what is wrong
	}
	lines := strings.Split(string(text), "\n")
	root := doc.Content[0].Content
	for i := 0; i+1 < len(root); i += 2 {
		key := root[i]
		if known, ok := aliases[key.Value]; ok && known != key.Value && !slices.Contains(blockNames, key.Value) && root[i+1].Kind == yaml.MappingNode && key.Value != "objective" {
			return nil, nil, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, key.Line), Key: key.Value, Message: fmt.Sprintf("unknown key; did you mean %q?", known), Origin: setting.File}}
		}
		if !slices.Contains(blockNames, key.Value) {
			continue
		}
		b := block{key.Line, len(lines), root[i+1]}
		if i+2 < len(root) {
			b.last = root[i+2].Line - 1
		}
		if b.last < b.first || i > 0 && root[i-2].Line == key.Line {
			return nil, nil, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, key.Line), Key: key.Value, Message: "write it on lines of its own", Origin: setting.File}}
		}
		if _, twice := found[key.Value]; twice {
			return nil, nil, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, key.Line), Key: key.Value, Message: "stands twice; keep one", Origin: setting.File}}
		}
		found[key.Value] = b
	}
	for _, b := range found {
		for i := b.first - 1; i < b.last; i++ {
			lines[i] = ""
		}
	}
	return []byte(strings.Join(lines, "\n")), found, nil
}

// keep blanks all but the blocks.
func keep(text []byte, found map[string]block) string {
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		inside := false
		for _, b := range found {
			inside = inside || i >= b.first-1 && i < b.last
		}
		if !inside {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// Override takes KEY=VALUE of the command line: a key, a training setting by
// its bare name, or a part of a block such as space.lr.high.
func (c *Config) Override(key, text string) error {
	where := "--set " + key
	if name, path, ok := strings.Cut(key, "."); ok && slices.Contains(blockNames, name) {
		return c.overrideBlock(name, path, text, where)
	}
	if !slices.Contains(c.Names(), key) && slices.Contains(c.Names(), trainingPrefix+key) {
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

// commented tells whether YAML has cut a comment off.
func commented(n *yaml.Node) bool {
	return n.HeadComment != "" || n.LineComment != "" || n.FootComment != "" || slices.ContainsFunc(n.Content, commented)
}

func (c *Config) overrideBlock(name, path, text, where string) error {
	value, err := typedNode(text)
	if err != nil {
		return setting.Fault{Where: where, Message: err.Error(), Origin: setting.Flag}
	}
	at := c.blocks[name]
	if at == nil || at.Kind != yaml.MappingNode {
		at = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	} else {
		at = clone(at)
	}
	c.blocks[name] = at
	// Names of parameters may hold dots: the longest that is there counts, and
	// one field may follow.
	if i := strings.LastIndexByte(path, '.'); i > 0 && name == "space" {
		if inner := child(at, path[:i]); inner != nil && inner.Kind == yaml.MappingNode {
			put(inner, path[i+1:], value)
			return nil
		}
	}
	put(at, path, value)
	return nil
}

// given tells whether a key was said anywhere.
func (c *Config) given(key string) bool { return c.Get(key).Origin > setting.Default }

// Environ is a variable of an environment given as NAME=value lines.
func Environ(lines []string, name string) string {
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, name+"="); ok {
			return v
		}
	}
	return ""
}
