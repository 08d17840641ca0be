package sweep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
)

// ParseToRun is Parse of a spec that is about to run, on a cluster or on this
// machine: besides the spec as such it checks what the trainer torch would refuse
// in the first trial (keys and values of training, parameters that are not
// settings, ranges beyond a setting's, metrics that are not reported). Another
// trainer has settings and metrics of its own, which nothing here knows.
//
// A sweep that runs was checked when it was made and is not checked again:
// whoever reads what is stored takes Parse, or no parser at all.
func ParseToRun(file string, text []byte) (*spec.Spec, error) {
	r := &reader{file: file, toRun: true}
	return r.result(r.parse(text))
}

// ParseNodeToRun is ParseToRun of a mapping that was read from a file already.
func ParseNodeToRun(file string, root *yaml.Node) (*spec.Spec, error) {
	r := &reader{file: file, toRun: true}
	return r.result(r.root(root))
}

// trains checks what the trainer torch takes. Where the spec itself has a fault
// below training or space, that one is on record, and the rest is checked as far
// as it was read.
func (r *reader) trains(root *yaml.Node, given map[string]*yaml.Node, s *spec.Spec) {
	if s.Trainer != DefaultTrainer || trial.KindOf([]byte(s.TrainingJSON)) != trial.Training {
		return
	}
	if n := given["training"]; n != nil && n.Kind == yaml.MappingNode {
		r.trainingKeys(n, "training", "")
	}
	for i := range s.Space.Params {
		p := &s.Space.Params[i]
		if where, ok := r.places[p.Name]; ok && !where.faulty {
			r.searched(p, where)
		}
	}
	r.reported(given)
	if len(r.errs) == 0 {
		r.together(root, given["training"], s)
	}
}

// trainingKeys checks a mapping of training settings, nested or with dotted keys.
func (r *reader) trainingKeys(n *yaml.Node, path, prefix string) {
	for _, e := range r.entries(n, path) {
		key, at := prefix+e.name, join(path, e.name)
		row := settings.Table.Find(key)
		switch {
		case len(settings.Table.Short(key)) > 0 && e.value.Kind != yaml.MappingNode:
			r.trainingValue(e.value, at, &settings.Table.Short(key)[0])
		case row == nil && settings.Table.Group(key):
			if r.mapping(e.value, at, "{"+strings.TrimPrefix(settings.Table.Below(key)[0].Name, key+".")+": ...}") {
				r.trainingKeys(e.value, at, key+".")
			}
		case row == nil:
			r.fail(e.key, at, "unknown training setting%s", settingMeant(key))
		default:
			r.trainingValue(e.value, at, row)
		}
	}
}

// trainingValue checks the value of a training setting.
func (r *reader) trainingValue(n *yaml.Node, at string, row *setting.Setting) {
	before := len(r.errs)
	var b bytes.Buffer
	if r.json(&b, n, at, 0); len(r.errs) > before {
		return
	}
	v := setting.Plain(b.Bytes())
	if v == nil && row.Null {
		return
	}
	if err := row.Type.Check(v); err != nil {
		r.fail(n, at, "%s", err)
	}
}

// settingMeant names the training setting that an unknown one stands for.
func settingMeant(unknown string) string {
	if near := settings.Table.Near(unknown); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// searched checks one parameter: it is a training setting, and every value that
// search may propose is one of that setting's.
func (r *reader) searched(p *space.Parameter, where place) {
	key := join("space", p.Name)
	row := settings.Table.Find(p.Name)
	if row == nil && len(settings.Table.Short(p.Name)) == 0 {
		r.fail(where.whole, key, "the trainer has no such setting%s", settingMeant(p.Name))
		return
	}
	if slices.Contains(ofGroups, p.Name) {
		r.fail(where.whole, key, "%s", notSearched(p.Name))
		return
	}
	at := func(field string) (*yaml.Node, string) {
		if n := where.fields[field]; n != nil {
			return n, key + "." + field
		}
		return where.whole, key
	}
	listed := func(field string, values []space.Value) {
		n, path := at(field)
		for i, v := range values {
			node, item := n, path
			if n.Kind == yaml.SequenceNode && i < len(n.Content) {
				node, item = n.Content[i], fmt.Sprintf("%s[%d]", path, i)
			}
			if err := row.Type.Check(plain(v)); err != nil {
				r.fail(node, item, "%s", err)
			}
		}
	}
	switch {
	case p.Kind == space.KindCategorical:
		listed("choices", p.Choices)
		return
	case where.fields["values"] != nil:
		// They were sorted when they were read: their places in the file are lost.
		n, path := at("values")
		for _, v := range p.Values {
			if err := row.Type.Check(plain(v)); err != nil {
				r.fail(n, path, "%s", err)
			}
		}
		return
	}
	for _, bound := range []struct {
		field string
		value float64
	}{{"low", p.Low}, {"high", p.High}} {
		n, path := at(bound.field)
		if err := row.Type.Check(plain(space.Float(bound.value))); err != nil {
			r.fail(n, path, "the trainer's %s: %s", p.Name, err)
			return
		}
	}
	// Between whole bounds a float axis has values that are not whole.
	if row.Type.Whole && p.Kind == space.KindFloat && p.Low < p.High && len(p.Values) == 0 && (p.Step == 0 || p.Step != float64(int64(p.Step))) {
		n, path := at("type")
		r.fail(n, path, "the trainer's %s takes whole numbers; use type int", p.Name)
	}
}

// plain is a value of the space as a setting holds it.
func plain(v space.Value) any { return setting.Plain(json.RawMessage(v.String())) }

// reported checks the metrics of objectives and constraints.
func (r *reader) reported(given map[string]*yaml.Node) {
	metric := func(n *yaml.Node, path string) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v := n.Content[i+1]
			if n.Content[i].Value != "metric" || v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" || strings.TrimSpace(v.Value) == "" || slices.Contains(settings.Metrics, v.Value) {
				continue
			}
			near := ""
			if word, ok := nearest.Close(v.Value, settings.Metrics); ok {
				near = fmt.Sprintf("; did you mean %s?", word)
			}
			r.fail(v, path+".metric", "the trainer does not report %s%s (it reports %s)", shown(v), near, strings.Join(settings.Metrics, ", "))
		}
	}
	metric(given["objective"], "objective")
	for _, key := range []string{"objectives", "constraints"} {
		if n := given[key]; n != nil && n.Kind == yaml.SequenceNode {
			for i, item := range n.Content {
				path := fmt.Sprintf("%s[%d]", key, i)
				metric(r.follow(item, path), path)
			}
		}
	}
}

// inConflicts are the settings that contradict one another in some combinations;
// where one of them is searched the combination differs from trial to trial, and
// only the trainer can judge it.
var inConflicts = []string{"batch_size", "optimizer", "nesterov", "momentum", "min_lr", "lr", "warmup_epochs", "epochs", "normalize", "normalization.mean", "normalization.std"}

// ofGroups are the settings by which slots are granted.
var ofGroups = []string{"members", "members.min", "members.max", "shards", "shard_threads"}

func notSearched(name string) string {
	return "a trial's members and shards cannot be searched: slots are granted before its first step; set " + name + " below training"
}

// together checks the settings of all trials as a whole: the image folders are
// given, and no two of them contradict one another.
func (r *reader) together(root, training *yaml.Node, s *spec.Spec) {
	at := training
	if at == nil {
		at = root
	}
	given, _ := settings.Table.ReadJSON("training", []byte(s.TrainingJSON))
	missing := false
	for _, key := range []string{"data.train", "data.validation"} {
		known := slices.ContainsFunc(given, func(g setting.Given) bool { return g.Key == key }) ||
			slices.ContainsFunc(s.Space.Params, func(p space.Parameter) bool { return p.Name == key })
		if !known {
			missing = true
			r.fail(at, "training."+key, "is missing; give a folder with one subfolder of images per class")
		}
	}
	if missing || slices.ContainsFunc(s.Space.Params, func(p space.Parameter) bool { return slices.Contains(inConflicts, p.Name) }) {
		return
	}
	params := map[string]string{} // folders that are searched are not missing
	for _, key := range []string{"data.train", "data.validation"} {
		if slices.ContainsFunc(s.Space.Params, func(p space.Parameter) bool { return p.Name == key }) {
			params[key] = "/"
		}
	}
	laid, err := json.Marshal(params)
	if err != nil {
		panic(err) // texts alone
	}
	_, err = settings.Parse([]byte(s.TrainingJSON), laid, "/")
	var faults setting.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			r.fail(at, "training", "%s", f.Message)
		}
	}
}
