package api

import (
	"fmt"
	"math"
	"sort"
	"strings"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// maxWarm bounds how many trials a warm start takes over: the best half of them
// and others spread evenly, which is all that search's models would look at.
const maxWarm = 1000

// warmStart reads what a sweep found out, in terms of a new spec: its points in
// the new space, valued by the new objectives. Parameters that are gone are
// left out; points with a value outside the new space are passed over, with a
// warning; a parameter that is new is an error, since nothing is known of it.
func warmStart(from *state.Sweep, spec *spec.Spec) (warm []*logv1.WarmTrial, warnings []string, err error) {
	for _, p := range spec.Space.Params {
		if _, ok := from.Space.Lookup(p.Name); !ok {
			return nil, nil, fmt.Errorf("sweep %s has no parameter %q (it has %s): its trials have no values of it; start without it, or drop the parameter", from.ID, p.Name, names(&from.Space))
		}
	}
	valued := valuer(spec)
	outside, ended := 0, 0
	for t := range from.Trials(1) {
		if !t.Ended() && t.Status != trial.Paused {
			continue
		}
		w := valued(t)
		if w == nil {
			continue
		}
		ended++
		point, err := from.Space.Decode(t.ParamsJSON)
		if err != nil {
			return nil, nil, fmt.Errorf("read trial %d of sweep %s again: %w", t.Number, from.ID, err)
		}
		moved, ok := translate(&from.Space, point, &spec.Space)
		if !ok {
			outside++
			continue
		}
		w.ParamsJson = spec.Space.Encode(moved)
		warm = append(warm, w)
	}
	switch {
	case ended == 0:
		return nil, nil, fmt.Errorf("no trial of sweep %s has ended with a value of %s; metrics it reported: %s", from.ID, spec.Objective.Metric, strings.Join(from.Metrics(), ", "))
	case len(warm) == 0:
		return nil, nil, fmt.Errorf("none of the %d trials of sweep %s lies in this spec's space; widen the space or start without", ended, from.ID)
	case outside > 0:
		warnings = append(warnings, fmt.Sprintf("warm_start: %d of %d trials of sweep %s lie outside this spec's space and are passed over", outside, ended, from.ID))
	}
	return thin(warm, spec.Objective.Maximize), warnings, nil
}

// valuer returns what values a trial by the new objectives and constraints; nil
// for a trial that says nothing about them. A trial that diverged says something without a value: search learns to
// keep away from its point.
func valuer(spec *spec.Spec) func(*state.Trial) *logv1.WarmTrial {
	// An empty sweep of the new spec: its rule for a trial's values is the one that its own trials
	// will have.
	lens := &state.Sweep{Spec: spec}
	return func(t *state.Trial) *logv1.WarmTrial {
		w := &logv1.WarmTrial{Trial: t.Number, Status: wire.ToStatus(t.Status), Epoch: t.Epoch()}
		metrics := lens.Measured(t, t.Epoch())
		if metrics == nil {
			if t.Status == trial.Diverged {
				return w
			}
			return nil
		}
		for _, m := range metrics {
			w.Metrics = append(w.Metrics, &atelierv1.Metric{Name: m.Name, Value: m.Value})
		}
		w.HasValue, w.Value = true, metrics[0].Value
		return w
	}
}

// translate carries a point over to another space: by name, numbers as numbers. false: a value is missing there,
// would have to be rounded, or is out of range; a point is never bent to fit, for its value was measured elsewhere.
func translate(from *space.Space, p space.Point, to *space.Space) (space.Point, bool) {
	out := make(space.Point, len(to.Params))
	for i := range to.Params {
		if !to.Active(out, i) {
			continue
		}
		at, ok := from.Lookup(to.Params[i].Name)
		if !ok || p[at].IsAbsent() {
			return nil, false
		}
		out[i] = p[at]
		if f, number := p[at].Number(); number && to.Params[i].Kind != from.Params[at].Kind {
			switch to.Params[i].Kind {
			case space.KindInt:
				if f != math.Trunc(f) {
					return nil, false
				}
				out[i] = space.Int(int64(f))
			case space.KindFloat:
				out[i] = space.Float(f)
			}
		}
	}
	return out, to.Check(out) == nil
}

// thin keeps at most maxWarm trials, in their order. The ranking is stable and the choice even, so the same sweep
// gives the same warm start.
func thin(warm []*logv1.WarmTrial, maximize bool) []*logv1.WarmTrial {
	if len(warm) <= maxWarm {
		return warm
	}
	ranked := append([]*logv1.WarmTrial(nil), warm...)
	sort.SliceStable(ranked, func(i, j int) bool {
		a, b := ranked[i], ranked[j]
		if a.HasValue != b.HasValue {
			return a.HasValue
		}
		return a.HasValue && a.Value != b.Value && (a.Value > b.Value) == maximize
	})
	kept := ranked[: maxWarm/2 : maxWarm/2]
	rest := ranked[maxWarm/2:]
	for i := range maxWarm / 2 {
		kept = append(kept, rest[i*len(rest)/(maxWarm/2)])
	}
	sort.Slice(kept, func(i, j int) bool { return kept[i].Trial < kept[j].Trial })
	return kept
}

// names lists a space's parameters for a message.
func names(s *space.Space) string {
	var list []string
	for i := range s.Params {
		list = append(list, s.Params[i].Name)
	}
	return strings.Join(list, ", ")
}
