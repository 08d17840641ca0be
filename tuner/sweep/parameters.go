package sweep

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"go.yaml.in/yaml/v3"

	"atelier/common/space"
	"atelier/common/spec"
	"atelier/tuner/search"
)

const (
	maxListed = 10_000        // values or choices of one parameter
	maxPoint  = 1 << 16       // bytes of one trial's parameters, as the coordinators record them
	maxSteps  = math.MaxInt32 // points of one axis; an even axis of floats needs no list
)

// place is where a parameter's fields stand in the file: space.Faults knows parameters by name, a person wants the
// line.
type place struct {
	whole  *yaml.Node
	fields map[string]*yaml.Node // looked up only
	faulty bool                  // a fault is on record already
}

// space reads the parameters in the order of the file, which is the order of grids and tables. What
// a parameter alone can have wrong is found here, the rest (bounds, conditions, cycles) by the
// space itself.
func (r *reader) space(n *yaml.Node, s *spec.Spec) {
	const example = "lr: {type: float, low: 1.0e-5, high: 0.1, log: true}"
	if !r.mapping(n, "space", example) {
		return
	}
	before := len(r.errs)
	places := map[string]place{}
	r.places = places
	for _, e := range r.entries(n, "space") {
		faults := len(r.errs)
		p, where := r.parameter(e)
		where.faulty = len(r.errs) > faults
		places[e.name] = where
		s.Space.Params = append(s.Space.Params, p)
	}
	if len(s.Space.Params) == 0 {
		if len(r.errs) == before {
			r.fail(n, "space", "is empty; give at least one parameter, such as %s", example)
		}
		return
	}
	for _, f := range s.Space.Faults() {
		where, ok := places[f.Param]
		if !ok {
			r.fail(n, "space", "%s", f.Message)
			continue
		}
		if where.faulty && f.Field != "when" {
			continue // checking on would only echo what is on record
		}
		key := "space." + f.Param
		at := where.whole
		if field := where.fields[f.Field]; field != nil {
			at, key = field, key+"."+f.Field
		}
		r.fail(at, key, "%s", f.Message)
	}
	r.bulk(n, s, places)
	// A space with faults has no size.
	if len(r.errs) == before && s.SearchMethod == search.Grid {
		r.grid(n, s, places)
	}
}

// bulk refuses a space whose points could be too large for the log, at the parameter that takes the most.
func (r *reader) bulk(n *yaml.Node, s *spec.Spec, places map[string]place) {
	total, most, largest := 0, 0, ""
	for _, p := range s.Space.Params {
		size := len(p.Name) + 32 // quotes, and any number
		for _, v := range slices.Concat(p.Choices, p.Values) {
			size = max(size, len(p.Name)+8+len(v.String()))
		}
		if total += size; size > most {
			most, largest = size, p.Name
		}
	}
	if total > maxPoint {
		at := n
		if where, ok := places[largest]; ok {
			at = where.whole
		}
		r.fail(at, "space."+largest, "takes up to %d bytes of a trial's parameters, which have at most %d in all; give shorter choices, such as the names of files", most, maxPoint)
	}
}

// grid sees to it that a grid can be counted, before anything lists it, and makes its size the
// budget.
func (r *reader) grid(n *yaml.Node, s *spec.Spec, places map[string]place) {
	size, finite := s.Space.Size()
	if !finite {
		// Each axis without an end is named, not the first alone.
		for i := range s.Space.Params {
			p := &s.Space.Params[i]
			if _, ok := p.Cells(); !ok {
				r.fail(places[p.Name].whole, "space."+p.Name, "grid_search needs to know which values to try; add steps: 5 (points), step: %s or values: [...]", space.Float(tenth(p)))
			}
		}
		return
	}
	count := fmt.Sprint(size)
	if size == math.MaxUint64 {
		count = "more than 18446744073709551615"
	}
	switch {
	case s.Budget.Trials == 0 && size > MaxGrid:
		r.fail(n, "space", "the grid has %s points; without a budget the limit is %d: give fewer values, or budget: {trials: 1000} for the first of them", count, MaxGrid)
	case s.Budget.Trials == 0 || uint64(s.Budget.Trials) > size:
		s.Budget.Trials = int64(size)
	}
}

// tenth is a power of ten that cuts the range into 5 to 50 pieces: the example in a message.
func tenth(p *space.Parameter) float64 {
	t := math.Pow(10, math.Floor(math.Log10((p.High-p.Low)/5)))
	if t <= 0 || math.IsInf(t, 0) || math.IsNaN(t) {
		return 1
	}
	return t
}

// parameter reads one parameter. Which fields it may have depends on its type, so a missing or
// wrong type is the only fault told of it, besides words that no type has.
func (r *reader) parameter(e entry) (space.Parameter, place) {
	p := space.Parameter{Name: e.name}
	where := place{whole: e.key, fields: map[string]*yaml.Node{}}
	key := join("space", e.name)
	if !r.mapping(e.value, key, "{type: float, low: 0, high: 1}") {
		return p, where
	}
	fields := r.entries(e.value, key)
	for _, f := range fields {
		where.fields[f.name] = f.value
	}
	n := where.fields["type"]
	if n == nil {
		r.fail(e.key, key+".type", "is missing; give float, int or categorical")
		r.strangers(fields, key, children("space.NAME"))
		return p, where
	}
	kind, ok := r.oneOf(n, key+".type", kinds)
	if !ok {
		r.strangers(fields, key, children("space.NAME"))
		return p, where
	}
	switch kind {
	case "float":
		p.Kind = space.KindFloat
	case "int":
		p.Kind = space.KindInt
	default:
		p.Kind = space.KindCategorical
	}
	if p.Kind == space.KindCategorical {
		r.strangers(fields, key, fieldsOf(kind))
		r.choices(&p, where, key)
	} else {
		r.strangers(fields, key, fieldsOf(kind))
		r.numbers(&p, where, key)
	}
	if n := where.fields["when"]; n != nil {
		p.When = r.when(n, key+".when")
	}
	return p, where
}

// strangers records the fields that are not known.
func (r *reader) strangers(fields []entry, key string, known []string) {
	for _, f := range fields {
		if !slices.Contains(known, f.name) {
			r.unknown(f, key, known)
		}
	}
}

// choices reads what a categorical parameter chooses from, in the order of the file.
func (r *reader) choices(p *space.Parameter, where place, key string) {
	n := where.fields["choices"]
	if n == nil {
		r.fail(where.whole, key+".choices", "is missing; give a list, such as [16, 32, 64]")
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.fail(n, key+".choices", "want a list such as [16, 32, 64], not %s", shown(n))
		return
	}
	p.Choices = r.values(n, key+".choices")
	if len(n.Content) == 0 {
		r.fail(n, key+".choices", "is empty; give at least one choice")
	}
}

// values reads a list of numbers, strings and bools.
func (r *reader) values(n *yaml.Node, key string) []space.Value {
	if len(n.Content) > maxListed {
		r.fail(n, key, "lists %d items; the limit is %d", len(n.Content), maxListed)
		return nil
	}
	var out []space.Value
	for i, c := range n.Content {
		if c = r.follow(c, key); c == nil {
			return out
		}
		if v, ok := r.value(c, fmt.Sprintf("%s[%d]", key, i)); ok {
			out = append(out, v)
		}
	}
	return out
}

// value reads one number, text or truth value and keeps its kind: a choice of 16 reaches the
// trainer as 16 and not as 16.0 or "16".
func (r *reader) value(n *yaml.Node, key string) (space.Value, bool) {
	if n.Kind == yaml.ScalarNode {
		switch n.ShortTag() {
		case "!!int":
			var i int64
			if n.Decode(&i) == nil {
				return space.Int(i), true
			}
			r.fail(n, key, "%s is beyond 64 bits", n.Value)
			return space.Value{}, false
		case "!!float":
			f, ok := r.number(n, key)
			if ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
				r.fail(n, key, "is %s; give a finite number", n.Value)
				return space.Value{}, false
			}
			return space.Float(f), ok
		case "!!bool":
			return space.Bool(r.truth(n, key)), true
		case "!!null":
		default:
			return space.String(n.Value), true
		}
	}
	r.fail(n, key, "want a number, text or true/false, not %s", shown(n))
	return space.Value{}, false
}

// numbers reads an axis of floats or ints: low and high, or values, which give both where they are
// left out.
func (r *reader) numbers(p *space.Parameter, where place, key string) {
	var ok bool
	get := func(field string, into *float64) bool {
		n := where.fields[field]
		if n == nil {
			return false
		}
		*into, ok = r.number(n, key+"."+field)
		if ok && (math.IsNaN(*into) || math.IsInf(*into, 0)) {
			r.fail(n, key+"."+field, "is %s; give a finite number", n.Value)
			*into = 0
		}
		return true
	}
	// Whether a bound was given, right or wrong, decides whether it is missing.
	low, high := get("low", &p.Low), get("high", &p.High)
	get("step", &p.Step)
	if n := where.fields["step"]; n != nil && ok && p.Step == 0 {
		r.fail(n, key+".step", "is 0; give the distance between values, above 0, or drop it")
	}
	if n := where.fields["log"]; n != nil {
		p.Log = r.truth(n, key+".log")
	}
	if n := where.fields["values"]; n != nil {
		r.listed(p, n, key+".values", low, high)
		low, high = true, true
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"low", low}, {"high", high}} {
		if !f.given {
			r.fail(where.whole, key+"."+f.name, "is missing; give low and high, or values")
		}
	}
	if n := where.fields["steps"]; n != nil && low && high {
		switch {
		case where.fields["step"] != nil || where.fields["values"] != nil:
			r.fail(n, key+".steps", "is given beside step or values; keep one of them")
		default:
			if count, ok := r.whole(n, key+".steps", 1, maxSteps); ok {
				r.spread(p, n, key+".steps", count)
			}
		}
	}
}

// listed takes explicit values, in any order; they are kept sorted, so that a grid's order does not hang on how
// a person listed them.
func (r *reader) listed(p *space.Parameter, n *yaml.Node, key string, low, high bool) {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		r.fail(n, key, "want a list of numbers such as [0.1, 0.01], not %s", shown(n))
		return
	}
	for i, v := range r.values(n, key) {
		f, ok := v.Number()
		_, whole := v.Int()
		switch {
		case !ok, p.Kind == space.KindInt && !whole:
			r.fail(n.Content[i], fmt.Sprintf("%s[%d]", key, i), "%s is not of type %s", v, p.Kind)
			return
		case p.Kind == space.KindFloat:
			v = space.Float(f)
		}
		p.Values = append(p.Values, v)
	}
	if len(p.Values) == 0 {
		return
	}
	// Given bounds stay, even where the values do not reach them: they are the axis on which other
	// methods draw.
	number := func(i int) float64 { f, _ := p.Values[i].Number(); return f }
	sort.SliceStable(p.Values, func(i, j int) bool { return number(i) < number(j) })
	if !low {
		p.Low = number(0)
	}
	if !high {
		p.High = number(len(p.Values) - 1)
	}
}

// spread turns a number of points into a step or, on a log scale and for ints,
// into values: even on the parameter's scale. Ints that round to the same number are one point.
func (r *reader) spread(p *space.Parameter, n *yaml.Node, key string, count int64) {
	valid := p.Low <= p.High && !(p.Log && p.Low <= 0) && !math.IsInf(p.High-p.Low, 0)
	switch {
	case !valid || p.Low == p.High:
		return // low and high are reported by themselves; one value needs no step
	case count == 1:
		r.fail(n, key, "is 1 although low and high differ; give at least 2 points")
		return
	// An even axis of floats needs no list: any number of steps costs nothing.
	case p.Kind == space.KindFloat && !p.Log:
		p.Step = (p.High - p.Low) / float64(count-1)
		return
	case count > maxListed:
		r.fail(n, key, "%d points are beyond the limit of %d on one axis", count, maxListed)
		return
	}
	// The ends are exact, for they are what the person wrote; what lies between is rounded.
	for i := int64(0); i < count; i++ {
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
		default:
			f = round12(f)
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

// round12 keeps 12 significant digits, so that 0.001 is not 0.0009999999999999998.
func round12(f float64) float64 {
	scale := math.Pow(10, 11-math.Floor(math.Log10(math.Abs(f))))
	if r := math.Round(f*scale) / scale; !math.IsNaN(r) && !math.IsInf(r, 0) {
		return r
	}
	return f
}

// when reads the condition under which a parameter is active: for each named parent one value, or a
// list of which any will do. All parents must agree.
func (r *reader) when(n *yaml.Node, key string) []space.Condition {
	if !r.mapping(n, key, "{optimizer: [sgd]}") {
		return nil
	}
	var out []space.Condition
	for _, e := range r.entries(n, key) {
		c := space.Condition{Parent: e.name}
		if e.value.Kind == yaml.SequenceNode {
			c.Any = r.values(e.value, join(key, e.name))
		} else if v, ok := r.value(e.value, join(key, e.name)); ok {
			c.Any = []space.Value{v}
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		r.fail(n, key, "is empty; name a parameter and its values, such as {optimizer: [sgd]}, or drop it")
	}
	return out
}
