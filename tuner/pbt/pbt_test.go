package pbt_test

import (
	"math"
	"reflect"
	"testing"

	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/pbt"
	"atelier/tuner/search"
)

func problem(members int64) search.Problem {
	return search.Problem{Seed: 5, Parallelism: members, Space: &space.Space{Params: []space.Parameter{
		{Name: "lr", Kind: space.KindFloat, Low: 1e-4, High: 1e-1, Log: true},
		{Name: "depth", Kind: space.KindInt, Low: 1, High: 9},
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("sgd"), space.String("adam")}},
		{Name: "momentum", Kind: space.KindFloat, Low: 0, High: 0.99, When: []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}},
	}}}
}

func method(t *testing.T, p search.Problem) search.Method {
	t.Helper()
	s := pbt.Default()
	s.Interval, s.Epochs = 3, 12
	m, err := pbt.New(p, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ask(t *testing.T, m search.Method, history []search.Trial, n int) search.Proposal {
	t.Helper()
	p, err := m.Propose(t.Context(), history, n)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A population by hand: who is among the worst takes over one of the best, the
// others go on, and a member waits for nobody but itself.
func TestExploitAndExplore(t *testing.T) {
	p := problem(4)
	m := method(t, p)
	first := ask(t, m, nil, 10)
	if len(first.Points) != 4 || first.Exhausted {
		t.Fatalf("the first proposal is %+v", first)
	}
	var history []search.Trial
	for i, pt := range first.Points {
		history = append(history, search.Trial{Number: int64(i + 1), Point: pt})
	}
	if got := ask(t, m, history, 4); len(got.Points) != 0 || got.Exhausted {
		t.Errorf("proposed %+v while all train", got)
	}
	end := func(n int64, value float64, epoch int) {
		history[n-1].Status, history[n-1].HasValue, history[n-1].Value, history[n-1].Epoch = search.Complete, true, value, epoch
	}
	for n, v := range []float64{0.5, 0.1, 0.9, 0.4} {
		end(int64(n+1), v, 3)
	}
	next := ask(t, m, history, 4)
	want := []trial.Origin{{Trial: 1, Epoch: 3}, {Trial: 2, Epoch: 3}, {Trial: 2, Epoch: 3}, {Trial: 4, Epoch: 3}}
	if !reflect.DeepEqual(next.Origins, want) {
		t.Errorf("origins %+v, want %+v", next.Origins, want)
	}
	for i := range 4 {
		same := next.Points[i].Equal(history[next.Origins[i].Trial-1].Point)
		if same == (i == 2) {
			t.Errorf("trial %d has the settings %v, its origin %v", 5+i, next.Points[i], history[next.Origins[i].Trial-1].Point)
		}
		if err := p.Space.Check(next.Points[i]); err != nil {
			t.Error(err)
		}
	}
	took := next.Points[2]
	if took[2] != history[1].Point[2] {
		t.Errorf("the optimizer changed from %v to %v", history[1].Point[2], took[2])
	}
	// One ended, three train: that member goes on alone, and the others' earlier
	// segments are what it is compared with.
	for i, pt := range next.Points {
		history = append(history, search.Trial{Number: int64(5 + i), Point: pt})
	}
	end(5, 0.3, 6)
	if got := ask(t, m, history, 4); len(got.Points) != 1 || got.Origins[0] != (trial.Origin{Trial: 5, Epoch: 6}) {
		t.Errorf("proposed %+v", got)
	}
	// A segment that overshot its end, as could be before runs ended by themselves:
	// who goes on from it begins at its end.
	end(5, 0.3, 12)
	if got := ask(t, m, history, 4); len(got.Points) != 1 || got.Origins[0] != (trial.Origin{Trial: 5, Epoch: 6}) {
		t.Errorf("proposed %+v from a segment that overshot", got)
	}
	// The same history, another instance: the same proposal.
	if got, again := ask(t, m, history, 4), ask(t, method(t, p), history, 4); !reflect.DeepEqual(got, again) {
		t.Errorf("%+v, then %+v", got, again)
	}
}

// Whatever values come, in whatever order segments end, the sweep is proposed to
// its end, nobody inherits more than its round allows, and a new instance
// proposes the same.
func TestToTheEnd(t *testing.T) {
	for _, maximize := range []bool{false, true} {
		for name, value := range map[string]func(n int64) (search.Status, float64){
			"values": func(n int64) (search.Status, float64) { return search.Complete, float64(n * 7919 % 31) },
			"equal":  func(int64) (search.Status, float64) { return search.Complete, 1 },
			"nan":    func(int64) (search.Status, float64) { return search.Complete, math.NaN() },
			"failing": func(n int64) (search.Status, float64) {
				return []search.Status{search.Complete, search.Failed, search.Diverged}[n%3], float64(n)
			},
			"nothing": func(int64) (search.Status, float64) { return search.Failed, 0 },
		} {
			p := problem(5)
			p.Maximize = maximize
			m := method(t, p)
			var history []search.Trial
			open := []int64{}
			for round := 0; ; round++ {
				got := ask(t, m, history, 5-len(open))
				if again := ask(t, method(t, p), history, 5-len(open)); !reflect.DeepEqual(got, again) {
					t.Fatalf("%s: %+v, then %+v", name, got, again)
				}
				for i, pt := range got.Points {
					n := int64(len(history)) + 1
					if err := p.Space.Check(pt); err != nil {
						t.Fatalf("%s: trial %d: %v", name, n, err)
					}
					if got.Origins != nil {
						o := got.Origins[i]
						if o.Trial >= n || o.Epoch > 3*int32((n-1)/5) || o.Trial != 0 && history[o.Trial-1].Status != search.Complete {
							t.Fatalf("%s: trial %d begins at %+v", name, n, o)
						}
					}
					history = append(history, search.Trial{Number: n, Point: pt})
					open = append(open, n)
				}
				if got.Exhausted {
					break
				}
				if len(open) == 0 || round > 1000 {
					t.Fatalf("%s: it stands still after %d trials", name, len(history))
				}
				// The one in the middle ends next.
				at := len(open) / 2
				n := open[at]
				open = append(open[:at], open[at+1:]...)
				h := &history[n-1]
				h.Status, h.Value = value(n)
				h.HasValue, h.Epoch = h.Status == search.Complete && !math.IsNaN(h.Value), 3*int((n-1)/5+1)
			}
			if len(history) != 20 {
				t.Errorf("%s: %d trials, want 20", name, len(history))
			}
		}
	}
}

// A space of fewer points than there are members: points repeat, and the
// population is as large as it was asked to be.
func TestSmallSpaces(t *testing.T) {
	for name, params := range map[string][]space.Parameter{
		"one point":  {{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("sgd")}}},
		"two points": {{Name: "depth", Kind: space.KindInt, Low: 1, High: 2}},
	} {
		p := problem(4)
		p.Space = &space.Space{Params: params}
		m := method(t, p)
		var history []search.Trial
		for len(history) < 16 {
			got, whole := ask(t, m, history, 1), ask(t, method(t, p), history, 4)
			if len(got.Points) != 1 || got.Exhausted || !got.Points[0].Equal(whole.Points[0]) {
				t.Fatalf("%s: after %d trials %+v, and %+v when asked for four", name, len(history), got, whole)
			}
			n := int64(len(history)) + 1
			history = append(history, search.Trial{Number: n, Point: got.Points[0], Status: search.Complete, HasValue: true, Value: float64(n % 3), Epoch: 3 * int((n+3)/4)})
		}
		if got := ask(t, m, history, 4); len(got.Points) != 0 || !got.Exhausted {
			t.Errorf("%s: at its end %+v", name, got)
		}
	}
}

// Members that are all as good go on with what they have.
func TestEqualMembersGoOn(t *testing.T) {
	p := problem(4)
	m := method(t, p)
	var history []search.Trial
	for i, pt := range ask(t, m, nil, 4).Points {
		history = append(history, search.Trial{Number: int64(i + 1), Point: pt, Status: search.Complete, HasValue: true, Value: 0.5, Epoch: 3})
	}
	for i, o := range ask(t, m, history, 4).Origins {
		if want := (trial.Origin{Trial: int64(i + 1), Epoch: 3}); o != want {
			t.Errorf("trial %d begins at %+v, want %+v", 5+i, o, want)
		}
	}
	// Of equal ones the first by number is the better, and is what is taken over.
	history[3].Value = 0.9
	if o := ask(t, m, history, 4).Origins[3]; o.Trial != 1 {
		t.Errorf("the worst takes over trial %d", o.Trial)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	good := pbt.Settings{Interval: 3, Epochs: 12, Share: 0.25, Perturb: 0.1}
	for name, change := range map[string]func(*pbt.Settings, *search.Problem){
		"alone":    func(_ *pbt.Settings, p *search.Problem) { p.Parallelism = 1 },
		"interval": func(s *pbt.Settings, _ *search.Problem) { s.Interval = 13 },
		"share":    func(s *pbt.Settings, _ *search.Problem) { s.Share = 0.6 },
		"perturb":  func(s *pbt.Settings, _ *search.Problem) { s.Perturb = math.NaN() },
		"warm":     func(_ *pbt.Settings, p *search.Problem) { p.Warm = make([]search.Trial, 1) },
	} {
		s, p := good, problem(4)
		change(&s, &p)
		if _, err := pbt.New(p, s); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
