package tune

import (
	"errors"
	"fmt"
	"maps"
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
	file  string                   // that was read, as messages name it
	typed map[string]string        // parts of blocks that flags gave, such as space.lr.high: by which flag
}

// New is a configuration of all defaults.
func New() *Config {
	return &Config{Config: setting.New(Document.Table), below: map[string]setting.Value{}, typed: map[string]string{}}
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

// Trains reports whether trials are trained with torch, on images.
func (c *Config) Trains() bool { return c.String(keyTrainer) == "torch" }

// Images is an image folder: the tuning's own, else that of the training
// configuration, else where data preparation puts them.
func (c *Config) Images(key string) setting.Value {
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
	c.file = name
	if err := c.Config.ReadFile(name, text); err != nil {
		faults = append(faults, err)
	}
	bad := func(n *yaml.Node, key, message string) {
		faults = append(faults, setting.Faults{{Where: fmt.Sprintf("%s:%d", name, n.Line), Key: key, Message: message, Origin: setting.File}})
	}
	if v := c.Get(blockTrainer); v.Origin > setting.Default && clone(v.Block).Kind != yaml.MappingNode {
		bad(v.Block, blockTrainer, "want keys with values, such as {epoch_seconds: 0.5}")
	}
	if only := specOf(text); only != nil {
		epochs := c.Get(KeyEpochs).Text()
		if n := member(member(only, blockStopping), "max_epochs"); n != nil {
			epochs = n.Value // the plan compares them
		}
		put(member(only, "training"), "epochs", &yaml.Node{Kind: yaml.ScalarNode, Value: epochs})
		if _, err := sweep.ParseNode(name, only); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// specOf is a spec of no method in particular with the file's space and stopping rule,
// where they stand; nil if it has neither.
func specOf(text []byte) *yaml.Node {
	var doc, spec yaml.Node
	if !parsed(text, &doc) || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil // the reader of keys says what is wrong
	}
	if err := yaml.Unmarshal([]byte("{search_method: random, objective: {metric: val_loss, direction: minimize}, budget: {trials: 1}, training: {}, space: {lr: {type: float, low: 0, high: 1}}}"), &spec); err != nil {
		panic(err)
	}
	any := false
	only, root := spec.Content[0], doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch key := root.Content[i].Value; key {
		case blockSpace, blockStopping:
			value := root.Content[i+1]
			if value.Kind == yaml.AliasNode {
				value = value.Alias
			}
			put(only, key, value)
			any = true
		}
	}
	if !any {
		return nil
	}
	return only
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
		return nil, fmt.Errorf("%.60q is not a YAML value", text)
	}
	return setting.Unplaced(doc.Content[0]), nil
}

// commented reports whether YAML has cut a comment off.
func commented(n *yaml.Node) bool {
	return n.HeadComment != "" || n.LineComment != "" || n.FootComment != "" || slices.ContainsFunc(n.Content, commented)
}

// overrideBlock sets one key of a block of YAML that no table describes, such as space.lr.high; the
// block is copied first, for it may be a default's.
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
	c.typed[name+"."+path] = where
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

// placed gives the faults of the plan's spec the places that a person knows: the
// line of the file, the flag, the variable. node is the spec with the lines of its
// parts.
func (c *Config) placed(node *yaml.Node, err error) error {
	_, located := sweep.ParseNodeToRun("", node)
	var found sweep.Errors
	if !errors.As(located, &found) {
		return err
	}
	var faults setting.Faults
	for _, f := range found {
		one := setting.Fault{Key: f.Key, Message: f.Message}
		v, flag := c.Get(f.Key), c.typedAt(f.Key)
		switch {
		case f.Line > 0:
			one.Where, one.Origin = fmt.Sprintf("%s:%d", c.file, f.Line), setting.File
		case flag != "":
			one.Where, one.Origin = flag, setting.Flag
		case v.Origin > setting.Default:
			one.Where, one.Origin = v.Source(), v.Origin
		}
		faults = append(faults, one)
	}
	return faults.OrNil()
}

// typedAt is the flag that gave a key of a block, or the part of one that the key
// is about.
func (c *Config) typedAt(key string) string {
	for path := key; path != ""; {
		if where := c.typed[path]; where != "" {
			return where
		}
		path = path[:max(0, strings.LastIndexByte(path, '.'))]
	}
	for _, path := range slices.Sorted(maps.Keys(c.typed)) {
		if strings.HasPrefix(path, key+".") {
			return c.typed[path]
		}
	}
	return ""
}

// given reports whether a key was said anywhere.
func (c *Config) given(key string) bool { return c.Get(key).Origin > setting.Default }
