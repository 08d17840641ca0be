package space_test

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"atelier/common/space"
)

var sgd = []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}

// mixed has every kind of axis.
func mixed() *space.Space {
	return &space.Space{Params: []space.Parameter{
		{Name: "lr", Kind: space.KindFloat, Low: 1e-5, High: 0.1, Log: true},
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("sgd"), space.String("a\"<b>")}},
		{Name: "momentum", Kind: space.KindFloat, Low: 0, High: 0.9, Step: 0.1, When: sgd},
		{Name: "depth", Kind: space.KindInt, Low: -3, High: 5},
		{Name: "width", Kind: space.KindInt, Low: 1, High: 1000, Log: true},
		{Name: "batch", Kind: space.KindInt, Low: 16, High: 100, Step: 16},
		{Name: "decay", Kind: space.KindFloat, Low: 0, High: 1, Values: []space.Value{space.Float(0), space.Float(1e-7), space.Float(1)}},
		{Name: "any", Kind: space.KindCategorical, Choices: []space.Value{space.Int(1), space.Float(0.5), space.String("1"), space.Bool(true), space.String("true")}},
		{Name: "nesterov", Kind: space.KindCategorical, Choices: []space.Value{space.Bool(false), space.Bool(true)}, When: append([]space.Condition{{Parent: "any", Any: []space.Value{space.Int(1), space.Bool(true)}}}, sgd...)},
		{Name: "one", Kind: space.KindFloat, Low: 3, High: 3},
	}}
}

func draw(s *space.Space, rng *rand.Rand) space.Point {
	u := make([]float64, len(s.Params))
	for i := range u {
		u[i] = rng.Float64()
	}
	return s.FromUnit(u)
}

func TestPointsSurviveTheirEncoding(t *testing.T) {
	s := mixed()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	keys := map[string]string{}
	for i := 0; i < 2000; i++ {
		p := draw(s, rng)
		if err := s.Check(p); err != nil {
			t.Fatal(err)
		}
		text := s.Encode(p)
		q, err := s.Decode(text)
		if err != nil || !q.Equal(p) || s.Encode(q) != text {
			t.Fatalf("%s reads back as %s, %v", text, s.Encode(q), err)
		}
		if before, ok := keys[s.Key(p)]; ok && before != text {
			t.Fatalf("%s and %s have one key", before, text)
		}
		keys[s.Key(p)] = text
	}
}

func TestEncoding(t *testing.T) {
	s := mixed()
	p := space.Point{space.Float(1e-5), space.String("a\"<b>"), space.Float(0.3), space.Int(-3), space.Int(7), space.Int(16), space.Float(1e-7), space.Float(0.5), space.Bool(true), space.Float(3)}
	want := `{"lr":0.00001,"optimizer":"a\"<b>","depth":-3,"width":7,"batch":16,"decay":1e-7,"any":0.5,"one":3}`
	if got := s.Encode(p); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if c := s.Canonical(p); !c[2].IsAbsent() || !c[8].IsAbsent() || p[2].IsAbsent() {
		t.Errorf("canonical %v of %v", c, p)
	}
	q, err := s.Decode(`{"one":3.0,"optimizer":"sgd", "any":true,"momentum":0.30000000000000004,"nesterov":false,"decay":1,"batch":3.2e1,"width":1000,"depth":5,"lr":1e-1}`)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Encode(q), `{"lr":0.1,"optimizer":"sgd","momentum":0.3,"depth":5,"width":1000,"batch":32,"decay":1,"any":true,"nesterov":false,"one":3}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	s := &space.Space{Params: []space.Parameter{
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("sgd"), space.String("adam")}},
		{Name: "momentum", Kind: space.KindFloat, Low: 0, High: 0.9, Step: 0.1, When: sgd},
		{Name: "depth", Kind: space.KindInt, Low: 1, High: 5},
	}}
	for text, want := range map[string]string{
		``:                                                             "not a JSON object",
		`[1]`:                                                          "not a JSON object",
		`{"optimizer":"adam","depth":3`:                                "EOF",
		`{"optimizer":"adam","depth":3} x`:                             "follows",
		`{"optimizer":"adam"}`:                                         `"depth": has no value`,
		`{"optimizer":"adam","depth":3.5}`:                             "not a whole number",
		`{"optimizer":"adam","depth":6}`:                               "outside [1, 5]",
		`{"optimizer":"adam","depth":"3"}`:                             "is no int",
		`{"optimizer":"adam","depth":null}`:                            "null is not a value",
		`{"optimizer":"adam","depth":{}}`:                              "want a number",
		`{"optimizer":"lion","depth":3}`:                               "not one of the choices",
		`{"optimizer":1,"depth":3}`:                                    "not one of the choices",
		`{"optimizer":"sgd","depth":3}`:                                `"momentum": has no value`,
		`{"optimizer":"adam","momentum":0.1,"depth":3}`:                "condition is not met",
		`{"optimizer":"sgd","momentum":0.15,"depth":3}`:                "allowed values",
		`{"optimizer":"adam","depth":3,"depth":4}`:                     "appears twice",
		`{"optimizer":"adam","depth":3,"width":4}`:                     "not a parameter",
		`{"optimizer":"adam","depth":1e999}`:                           "not a whole number",
		`{"optimizer":"\xff","depth":1}`:                               "UTF-8",
		`{"optimizer":"` + strings.Repeat("x", 2<<20) + `","depth":1}`: "the limit is",
	} {
		if len(text) < 100 && strings.Contains(text, `\xff`) {
			text = strings.ReplaceAll(text, `\xff`, "\xff")
		}
		if p, err := s.Decode(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, %v; want %q", text, p, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	s := mixed()
	rng := rand.New(rand.NewPCG(2, 2))
	for i := 0; i < 5; i++ {
		f.Add(s.Encode(draw(s, rng)))
	}
	f.Add(`{"lr":1e-400,"depth":9007199254740993}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := s.Decode(text)
		if err != nil {
			return
		}
		if err := s.Check(p); err != nil {
			t.Fatal(err)
		}
		again, err := s.Decode(s.Encode(p))
		if err != nil || !again.Equal(p) {
			t.Fatalf("%s reads back as %s, %v", s.Encode(p), s.Encode(again), err)
		}
	})
}

// FromUnit covers every cell, and ToUnit leads back.
func TestUnitCube(t *testing.T) {
	s := mixed()
	for i := range s.Params {
		a := &s.Params[i]
		n, finite := a.Cells()
		seen := map[space.Value]bool{}
		for k := 0; k <= 20000; k++ {
			v := a.FromUnit(float64(k) / 20000)
			seen[v] = true
			back := a.FromUnit(a.ToUnit(v))
			f, _ := v.Number()
			g, number := back.Number()
			if finite && back != v || number && math.Abs(f-g) > 1e-12*math.Abs(f) {
				t.Fatalf("%s: %s comes back as %s", a.Name, v, back)
			}
		}
		if finite && uint64(len(seen)) != n {
			t.Errorf("%s: %d of %d values reached", a.Name, len(seen), n)
		}
		for _, u := range []float64{-1, 2, math.NaN(), math.Inf(1)} {
			if v := a.FromUnit(u); a.ToUnit(v) < 0 || a.ToUnit(v) > 1 {
				t.Errorf("%s: %v gives %s", a.Name, u, v)
			}
		}
	}
	lr := &s.Params[0]
	if v, _ := lr.FromUnit(0.5).Float(); math.Abs(v-1e-3) > 1e-12 {
		t.Errorf("the middle of 1e-5 to 0.1 is %v on a log scale", v)
	}
	if v := s.Params[4].FromUnit(0.5); v != space.Int(22) {
		t.Errorf("the middle of 1 to 1000 is %s on a log scale", v)
	}
}

func TestNearest(t *testing.T) {
	s := mixed()
	for _, c := range []struct {
		param int
		f     float64
		want  space.Value
	}{
		{0, 7, space.Float(0.1)}, {0, math.NaN(), space.Float(1e-5)}, {2, 0.34, space.Float(0.3)}, {2, 0.36, space.Float(0.4)},
		{3, -2.6, space.Int(-3)}, {3, 99, space.Int(5)}, {5, 39, space.Int(32)}, {5, 41, space.Int(48)}, {5, 1e9, space.Int(96)},
		{6, 0.4, space.Float(1e-7)}, {6, 0.6, space.Float(1)}, {1, 0.6, space.String("a\"<b>")}, {1, 9, space.String("a\"<b>")},
	} {
		if got := s.Params[c.param].Nearest(c.f); got != c.want {
			t.Errorf("%s near %v: %s, want %s", s.Params[c.param].Name, c.f, got, c.want)
		}
	}
}

func finite() *space.Space {
	s := mixed()
	s.Params = s.Params[1:]
	s.Params[2] = space.Parameter{Name: "depth", Kind: space.KindInt, Low: 1, High: 3}
	s.Params[3] = space.Parameter{Name: "width", Kind: space.KindInt, Low: 1, High: 2}
	return s
}

// The enumeration is a bijection onto the distinct canonical points.
func TestEnumeration(t *testing.T) {
	s := finite()
	e, err := s.Enumerate()
	if err != nil {
		t.Fatal(err)
	}
	// adam: any 5; sgd: momentum 10 * (2 anys with nesterov 2, 3 without).
	const want = (5 + 10*(2*2+3)) * 3 * 2 * 6 * 3
	if n, ok := s.Size(); n != want || !ok || e.Size() != want {
		t.Fatalf("size %d, want %d", n, want)
	}
	seen := map[string]bool{}
	for k := uint64(0); k < e.Size(); k++ {
		p := e.At(k)
		if err := s.Check(p); err != nil {
			t.Fatalf("point %d: %v", k, err)
		}
		if r, ok := e.Rank(p); !ok || r != k {
			t.Fatalf("point %d has rank %d, %v", k, r, ok)
		}
		seen[s.Encode(p)] = true
	}
	if len(seen) != want {
		t.Errorf("%d distinct points of %d", len(seen), want)
	}
	p := e.At(0)
	p[0] = space.String("lion")
	if _, ok := e.Rank(p); ok {
		t.Error("a foreign point has a rank")
	}
	p = e.At(e.Size() - 1)
	p[1] = space.Float(0.3) // momentum without sgd
	if r, ok := e.Rank(p); ok {
		t.Errorf("a point that is not canonical has rank %d", r)
	}
}

func TestSize(t *testing.T) {
	if _, ok := mixed().Size(); ok {
		t.Error("a space with a float is finite")
	}
	huge := &space.Space{}
	for _, name := range strings.Split("abcde", "") {
		huge.Params = append(huge.Params, space.Parameter{Name: name, Kind: space.KindInt, Low: 1, High: 1 << 50})
	}
	if n, ok := huge.Size(); n != math.MaxUint64 || !ok {
		t.Error(n, ok)
	}
	// A float that conditions always leave out still makes a space infinite.
	s := &space.Space{Params: []space.Parameter{
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("sgd")}},
		{Name: "x", Kind: space.KindFloat, Low: 0, High: 1, When: sgd},
	}}
	if _, ok := s.Size(); ok {
		t.Error("finite")
	}
}

func TestValidate(t *testing.T) {
	number := func(change func(*space.Parameter)) space.Parameter {
		p := space.Parameter{Name: "x", Kind: space.KindFloat, Low: 1, High: 2}
		change(&p)
		return p
	}
	for want, p := range map[string]space.Parameter{
		"x: low: 3 is above high 2":            number(func(p *space.Parameter) { p.Low = 3 }),
		"x: low: a log scale":                  number(func(p *space.Parameter) { p.Log, p.Low = true, -1 }),
		"x: high: is NaN":                      number(func(p *space.Parameter) { p.High = math.NaN() }),
		"x: high: the range":                   number(func(p *space.Parameter) { p.Low, p.High = -1e308, 1e308 }),
		"x: step: -1 is negative":              number(func(p *space.Parameter) { p.Step = -1 }),
		"x: step: 1e-17 is too fine":           number(func(p *space.Parameter) { p.Step = 1e-17 }),
		"x: low: 1.5 is not a whole":           number(func(p *space.Parameter) { p.Kind, p.Low = space.KindInt, 1.5 }),
		"x: high: 18014398509481984 is beyond": number(func(p *space.Parameter) { p.Kind, p.High = space.KindInt, 1<<54 }),
		"x: values: item 1, 1, is no float":    number(func(p *space.Parameter) { p.Values = []space.Value{space.Int(1)} }),
		"x: values: must ascend":               number(func(p *space.Parameter) { p.Values = []space.Value{space.Float(2), space.Float(1)} }),
		"x: values: 9 is outside":              number(func(p *space.Parameter) { p.Values = []space.Value{space.Float(9)} }),
		"x: choices: is empty":                 {Name: "x", Kind: space.KindCategorical},
		"x: choices: 1 appears twice":          {Name: "x", Kind: space.KindCategorical, Choices: []space.Value{space.Int(1), space.Float(1)}},
		"x: choices: item 1 is NaN":            {Name: "x", Kind: space.KindCategorical, Choices: []space.Value{space.Float(math.NaN())}},
		"x: when: names \"y\"":                 number(func(p *space.Parameter) { p.When = []space.Condition{{Parent: "y"}} }),
		"x: when: refers to \"x\"":             number(func(p *space.Parameter) { p.When = []space.Condition{{Parent: "x"}} }),
		"x: type: unknown kind":                {Name: "x"},
		"a parameter needs a name":             {Kind: space.KindFloat, High: 1},
	} {
		s := &space.Space{Params: []space.Parameter{p}}
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if err := (&space.Space{}).Validate(); err == nil {
		t.Error("an empty space is valid")
	}
	s := &space.Space{}
	for _, name := range strings.Split("abcdefghijklmnopqr", "") {
		s.Params = append(s.Params, space.Parameter{Name: name, Kind: space.KindCategorical, Choices: []space.Value{space.Bool(true), space.Bool(false)}})
	}
	last := space.Parameter{Name: "last", Kind: space.KindFloat, High: 1}
	for _, p := range s.Params {
		last.When = append(last.When, space.Condition{Parent: p.Name, Any: []space.Value{space.Bool(true)}})
	}
	s.Params = append(s.Params, last)
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "65536 combinations") {
		t.Errorf("18 linked parents: %v", err)
	}
}

func TestValues(t *testing.T) {
	if space.Float(math.Copysign(0, -1)) != space.Float(0) {
		t.Error("-0 is not 0")
	}
	if space.Int(1) == space.Float(1) || space.String("") == (space.Value{}) || space.Bool(false) == (space.Value{}) {
		t.Error("unlike values are equal")
	}
	for want, v := range map[string]space.Value{
		"null": {}, "1e-7": space.Float(1e-7), "1e+21": space.Float(1e21), "0.1": space.Float(0.1), "-9223372036854775808": space.Int(math.MinInt64),
		`"<&>"`: space.String("<&>"), "true": space.Bool(true),
	} {
		if v.String() != want {
			t.Errorf("%s, want %s", v, want)
		}
	}
}
