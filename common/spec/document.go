package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"atelier/common/space"
	"atelier/common/trial"
)

// MaxSize bounds a document, in bytes.
const MaxSize = 8 << 20

// document is the JSON form. Its keys are those of the YAML spec; the space is a
// list, because its order counts.
type document struct {
	Version int `json:"version"`
	*Spec
	Objectives  []objective       `json:"objectives"`
	Constraints []constraint      `json:"constraints,omitempty"`
	Stopping    json.RawMessage   `json:"stopping,omitempty"`
	Space       []parameter       `json:"space"`
	Enqueue     []json.RawMessage `json:"enqueue,omitempty"`
	Training    json.RawMessage   `json:"training,omitempty"`
}

type objective struct {
	Metric    string `json:"metric"`
	Direction string `json:"direction"`
}

type constraint struct {
	Metric string   `json:"metric"`
	Max    *float64 `json:"max,omitempty"`
	Min    *float64 `json:"min,omitempty"`
}

// parameter is an axis. A number without a point or exponent is an int; floats
// that are whole are written as 64.0 where both may stand.
type parameter struct {
	Name    string            `json:"name"`
	Type    string            `json:"type"`
	Low     *float64          `json:"low,omitempty"`
	High    *float64          `json:"high,omitempty"`
	Log     bool              `json:"log,omitempty"`
	Step    float64           `json:"step,omitempty"`
	Values  []json.RawMessage `json:"values,omitempty"`
	Choices []json.RawMessage `json:"choices,omitempty"`
	When    []condition       `json:"when,omitempty"`
}

type condition struct {
	Parent string            `json:"parent"`
	Any    []json.RawMessage `json:"any"`
}

// Encode writes the document. Equal specs have equal documents.
func Encode(s *Spec) string {
	top := *s
	if top.Shards == 1 {
		top.Shards = 0 // as before there were any
	}
	d := document{Version: Version, Spec: &top, Objectives: []objective{}, Space: []parameter{}}
	for _, o := range s.Objectives {
		d.Objectives = append(d.Objectives, objective{o.Metric, o.Direction()})
	}
	for _, c := range s.Constraints {
		n := constraint{Metric: c.Metric}
		if c.HasMax {
			n.Max = &c.Max
		}
		if c.HasMin {
			n.Min = &c.Min
		}
		d.Constraints = append(d.Constraints, n)
	}
	d.Stopping, d.Training = raw(s.StoppingJSON), raw(s.TrainingJSON)
	for _, p := range s.Enqueue {
		d.Enqueue = append(d.Enqueue, raw(p))
	}
	for i := range s.Space.Params {
		d.Space = append(d.Space, written(&s.Space.Params[i]))
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(d); err != nil {
		panic("spec: a checked spec has a JSON form: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// raw is a text that is JSON, nil where it is none.
func raw(text string) json.RawMessage {
	if !json.Valid([]byte(text)) {
		return nil
	}
	return json.RawMessage(text)
}

// written is a parameter as the document has it.
func written(p *space.Parameter) parameter {
	w := parameter{Name: p.Name, Type: p.Kind.String(), Log: p.Log, Step: p.Step, Values: literals(p.Values), Choices: literals(p.Choices)}
	if p.Kind != space.KindCategorical {
		w.Low, w.High = &p.Low, &p.High
	}
	for _, c := range p.When {
		w.When = append(w.When, condition{c.Parent, literals(c.Any)})
	}
	return w
}

// literals keep a float a float: 1.0 must not come back as the int 1.
func literals(list []space.Value) (out []json.RawMessage) {
	for _, v := range list {
		text := v.String()
		if _, float := v.Float(); float && !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		out = append(out, json.RawMessage(text))
	}
	return out
}

// Decode reads a document of this version or an older one.
func Decode(text string) (*Spec, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("read spec: %d bytes; a spec has at most %d", len(text), MaxSize)
	}
	var form struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal([]byte(text), &form); err != nil {
		return nil, fmt.Errorf("read spec: %w", err)
	}
	if form.Version < 1 || form.Version > Version {
		return nil, fmt.Errorf("read spec: it is of version %d, this program reads 1 to %d: a newer program wrote it; upgrade this one", form.Version, Version)
	}
	s := &Spec{}
	d := document{Spec: s}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		if key, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
			return nil, fmt.Errorf("read spec: key %s is not known: a newer program wrote it; upgrade this one", key)
		}
		return nil, fmt.Errorf("read spec: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read spec: something follows the JSON object")
	}
	for i, o := range d.Objectives {
		if o.Direction != "minimize" && o.Direction != "maximize" {
			return nil, fmt.Errorf("read spec: objectives[%d].direction is %q", i, o.Direction)
		}
		s.Objectives = append(s.Objectives, trial.Objective{Metric: o.Metric, Maximize: o.Direction == "maximize"})
	}
	if len(s.Objectives) == 0 {
		return nil, errors.New("read spec: it has no objective")
	}
	s.Objective = s.Objectives[0]
	s.fillGroup()
	for _, c := range d.Constraints {
		n := trial.Constraint{Metric: c.Metric, HasMax: c.Max != nil, HasMin: c.Min != nil}
		if c.Max != nil {
			n.Max = *c.Max
		}
		if c.Min != nil {
			n.Min = *c.Min
		}
		s.Constraints = append(s.Constraints, n)
	}
	s.StoppingJSON, s.TrainingJSON = compact(d.Stopping), compact(d.Training)
	for _, p := range d.Enqueue {
		s.Enqueue = append(s.Enqueue, compact(p))
	}
	for i := range d.Space {
		p, err := read(&d.Space[i])
		if err != nil {
			return nil, fmt.Errorf("read spec: space[%d] %s: %w", i, d.Space[i].Name, err)
		}
		s.Space.Params = append(s.Space.Params, p)
	}
	return s, nil
}

// fillGroup is what the absence of members and shards means.
func (s *Spec) fillGroup() {
	if s.Members == (Members{}) {
		s.Members = Members{1, 1}
	}
	s.Shards = max(s.Shards, 1)
}

// compact takes white space out; "" for what is no JSON.
func compact(text json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return ""
	}
	return b.String()
}

// read is written's inverse.
func read(w *parameter) (space.Parameter, error) {
	p := space.Parameter{Name: w.Name, Log: w.Log, Step: w.Step}
	for k := space.KindFloat; k <= space.KindCategorical; k++ {
		if k.String() == w.Type {
			p.Kind = k
		}
	}
	if p.Kind == 0 {
		return p, fmt.Errorf("type is %q", w.Type)
	}
	if p.Kind != space.KindCategorical {
		if w.Low == nil || w.High == nil {
			return p, errors.New("it has no low or no high")
		}
		p.Low, p.High = *w.Low, *w.High
	}
	var err error
	if p.Values, err = values(w.Values); err != nil {
		return p, err
	}
	if p.Choices, err = values(w.Choices); err != nil {
		return p, err
	}
	for _, c := range w.When {
		any, err := values(c.Any)
		if err != nil {
			return p, err
		}
		p.When = append(p.When, space.Condition{Parent: c.Parent, Any: any})
	}
	return p, nil
}

// values is literals' inverse.
func values(list []json.RawMessage) (out []space.Value, err error) {
	for _, text := range list {
		var v any
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.UseNumber()
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		switch v := v.(type) {
		case bool:
			out = append(out, space.Bool(v))
		case string:
			out = append(out, space.String(v))
		case json.Number:
			if !strings.ContainsAny(v.String(), ".eE") {
				i, err := strconv.ParseInt(v.String(), 10, 64)
				if err != nil {
					return nil, err
				}
				out = append(out, space.Int(i))
				continue
			}
			f, err := strconv.ParseFloat(v.String(), 64)
			if err != nil {
				return nil, err
			}
			out = append(out, space.Float(f))
		default:
			return nil, fmt.Errorf("%.60s is not a value", text)
		}
	}
	return out, nil
}
