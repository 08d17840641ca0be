package spec

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/space"
)

// Before there was spec_json a log held the checked fields of a spec one by one,
// and its space and population as YAML alone. ReadYAML takes those two out of
// such a text.
//
// It is frozen: what it makes of a text must never change, since all replicas
// must make the same of it. It checks nothing, because the text was checked when
// it was taken; what it cannot read it leaves out.
func ReadYAML(s *Spec, text string) {
	s.fillGroup()
	defer func() {
		if recover() != nil { // the YAML library, on a text that was none
			s.Space, s.Population = space.Space{}, nil
		}
	}()
	var doc yaml.Node
	if yaml.Unmarshal([]byte(text), &doc) != nil || len(doc.Content) != 1 {
		return
	}
	var t tree
	var population *yaml.Node
	for _, e := range t.entries(doc.Content[0]) {
		switch e.name {
		case "space":
			for _, p := range t.entries(e.value) {
				if a := t.parameter(p); a.Kind != 0 {
					s.Space.Params = append(s.Space.Params, a)
				}
			}
		case "population":
			population = e.value
		}
	}
	var rule struct {
		Rule      string
		Interval  int
		MaxEpochs int `json:"max_epochs"`
	}
	if s.SearchMethod != "pbt" || json.Unmarshal([]byte(s.StoppingJSON), &rule) != nil || rule.Rule != "segment" {
		return
	}
	s.Population = &Population{Interval: rule.Interval, Epochs: rule.MaxEpochs, Share: 0.25, Perturb: 0.1}
	for _, e := range t.entries(population) {
		switch e.name {
		case "share":
			s.Population.Share = number(e.value)
		case "perturb":
			s.Population.Perturb = number(e.value)
		}
	}
}

// tree follows aliases a bounded number of times.
type tree struct{ visits int }

type entry struct {
	name  string
	value *yaml.Node
}

// follow resolves aliases. Too many visits panic, which ReadYAML takes for a text that is none: no parser has let
// such a one into a log.
func (t *tree) follow(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode && t.visits < 200_000 {
		t.visits++
		n = n.Alias
	}
	if t.visits++; t.visits > 200_000 {
		panic("spec: too many values")
	}
	return n
}

// entries are a mapping's, those that merge keys (<<) bring in behind its own.
func (t *tree) entries(n *yaml.Node) (out []entry) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	add := func(n *yaml.Node) (merged []*yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := t.follow(n.Content[i]), t.follow(n.Content[i+1])
			switch {
			case key.Kind != yaml.ScalarNode:
			case key.ShortTag() == "!!merge":
				merged = append(merged, value)
			case !slices.ContainsFunc(out, func(e entry) bool { return e.name == key.Value }):
				out = append(out, entry{key.Value, value})
			}
		}
		return merged
	}
	for merged := add(n); len(merged) > 0; {
		m := merged[0]
		merged = merged[1:]
		switch m.Kind {
		case yaml.SequenceNode:
			for _, c := range m.Content {
				merged = append(merged, t.follow(c))
			}
		case yaml.MappingNode:
			merged = append(merged, add(m)...)
		}
	}
	return out
}

// parameter reads a parameter as the parser of its time did; what that would have refused is not
// looked for.
func (t *tree) parameter(e entry) space.Parameter {
	p := space.Parameter{Name: e.name}
	steps := 0
	low, high := false, false
	for _, f := range t.entries(e.value) {
		switch f.name {
		case "type":
			p.Kind = map[string]space.Kind{"float": space.KindFloat, "int": space.KindInt, "categorical": space.KindCategorical}[f.value.Value]
		case "low":
			p.Low, low = number(f.value), true
		case "high":
			p.High, high = number(f.value), true
		case "step":
			p.Step = number(f.value)
		case "steps":
			f.value.Decode(&steps)
		case "log":
			f.value.Decode(&p.Log)
		case "values":
			p.Values = t.values(f.value)
		case "choices":
			p.Choices = t.values(f.value)
		case "when":
			for _, c := range t.entries(f.value) {
				p.When = append(p.When, space.Condition{Parent: c.name, Any: t.values(c.value)})
			}
		}
	}
	if p.Kind == space.KindCategorical {
		p.Low, p.High, p.Log, p.Step, p.Values = 0, 0, false, 0, nil
		return p
	}
	p.Choices = nil
	if n := len(p.Values); n > 0 {
		of := func(v space.Value) float64 { f, _ := v.Number(); return f }
		if p.Kind == space.KindFloat {
			for i, v := range p.Values {
				p.Values[i] = space.Float(of(v))
			}
		}
		slices.SortStableFunc(p.Values, func(a, b space.Value) int { return cmp.Compare(of(a), of(b)) })
		if !low {
			p.Low = of(p.Values[0])
		}
		if !high {
			p.High = of(p.Values[n-1])
		}
	} else if steps > 0 {
		spread(&p, steps)
	}
	return p
}

// spread turns a number of points into a step or, on a log scale and for ints,
// into values.
func spread(p *space.Parameter, count int) {
	switch {
	case count < 2 || !(p.Low < p.High) || p.Log && p.Low <= 0:
		return
	case p.Kind == space.KindFloat && !p.Log:
		p.Step = (p.High - p.Low) / float64(count-1)
		return
	}
	for i := range min(count, 10_000) {
		t := float64(i) / float64(count-1)
		f := p.Low + t*(p.High-p.Low)
		if p.Log {
			f = math.Exp(math.Log(p.Low) + t*(math.Log(p.High)-math.Log(p.Low)))
		}
		switch i {
		case 0:
			f = p.Low
		case count - 1:
			f = p.High
		default: // 12 significant digits, so that 0.001 is not 0.0009999999999999998
			scale := math.Pow(10, 11-math.Floor(math.Log10(math.Abs(f))))
			if r := math.Round(f*scale) / scale; !math.IsNaN(r) && !math.IsInf(r, 0) {
				f = r
			}
		}
		v := space.Float(f)
		if p.Kind == space.KindInt {
			v = space.Int(int64(math.Round(f)))
		}
		if k := len(p.Values); k == 0 || p.Values[k-1] != v {
			p.Values = append(p.Values, v)
		}
	}
}

// number is 0 where there is none that JSON can hold.
func number(n *yaml.Node) (f float64) {
	if n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// values are those of a list, or the one that stands alone.
func (t *tree) values(n *yaml.Node) (out []space.Value) {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, c := range list[:min(len(list), 10_000)] {
		if c = t.follow(c); c.Kind != yaml.ScalarNode {
			continue
		}
		switch c.ShortTag() {
		case "!!int":
			var i int64
			if c.Decode(&i) == nil {
				out = append(out, space.Int(i))
			}
		case "!!float":
			out = append(out, space.Float(number(c)))
		case "!!bool":
			var b bool
			c.Decode(&b)
			out = append(out, space.Bool(b))
		case "!!null":
		default:
			out = append(out, space.String(strings.ToValidUTF8(c.Value, "?")))
		}
	}
	return out
}
