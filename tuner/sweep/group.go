package sweep

import (
	"errors"
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/common/space"
	"atelier/common/spec"
	"atelier/common/trial"
)

// External is the trainer of sweeps whose trials programs of one's own ask for.
const External = "external"

// group takes from the training settings what slots are granted by. Where members are
// asked for, its faults are those of any trainer; shards alone are the trainer's own
// business. Of a spec that runs already there are no faults, as before there were
// groups: what cannot be read is no wish for one.
func (r *reader) group(given map[string]*yaml.Node, s *spec.Spec) {
	s.Members, s.Shards = spec.Members{Min: 1, Max: 1}, 1
	at := given["training"]
	if at == nil || s.Trainer != DefaultTrainer && !asksForMembers(s.TrainingJSON) {
		return
	}
	g, err := settings.GroupOf([]byte(s.TrainingJSON))
	if r.toRun && len(r.errs) == 0 {
		var faults setting.Faults
		errors.As(err, &faults)
		for _, f := range faults {
			r.fail(at, "training", "%s", f.Message)
		}
		r.groupFits(at, s, g)
	}
	if err != nil || len(r.errs) > 0 {
		return
	}
	s.Members, s.Shards = spec.Members{Min: int32(g.Min), Max: int32(g.Max)}, int32(g.Shards)
}

// asksForMembers reports whether training settings have members, as one value or
// part by part.
func asksForMembers(training string) bool {
	all, err := setting.Members([]byte(training))
	return err == nil && slices.ContainsFunc(all, func(m setting.Member) bool {
		return m.Key == "members" || strings.HasPrefix(m.Key, "members.")
	})
}

// groupFits checks what members and shards are beside: who carries trials out, and
// batches that are searched.
func (r *reader) groupFits(at *yaml.Node, s *spec.Spec, g settings.Group) {
	if g.Max > 1 {
		switch {
		case s.Trainer == External:
			r.fail(at, "training.members", "%d members of a trial: programs of your own ask for whole trials; drop it", g.Max)
		case trial.KindOf([]byte(s.TrainingJSON)) == trial.Inference:
			r.fail(at, "training.members", "%d members of an inference: one slot carries it out; drop it", g.Max)
		}
	}
	for i := range s.Space.Params {
		p := &s.Space.Params[i]
		if s.Trainer == External || g.Shards < 2 {
			return
		}
		where, known := r.places[p.Name]
		switch {
		case !known || where.faulty:
		case slices.Contains(ofGroups, p.Name):
			r.fail(where.whole, join("space", p.Name), "%s", notSearched(p.Name))
		case p.Name == "batch_size":
			r.batchesFit(where, p, g.Shards)
		}
	}
}

// batchesFit wants of each batch size that search may try that the shards divide it.
func (r *reader) batchesFit(where place, p *space.Parameter, shards int) {
	points := append(slices.Clone(p.Values), p.Choices...)
	divides := func(n float64) bool { return math.Mod(n, float64(shards)) == 0 }
	for _, v := range points {
		if n, ok := v.Number(); ok && !divides(n) {
			r.fail(where.whole, "space.batch_size", "a batch_size of %g does not divide into %d shards: give multiples of %d", n, shards, shards)
			return
		}
	}
	if len(points) > 0 || p.Kind == space.KindCategorical {
		return
	}
	if !divides(p.Low) || p.High > p.Low && (p.Step == 0 || !divides(p.Step)) {
		r.fail(where.whole, "space.batch_size", "not every batch_size from %g to %g divides into %d shards: give values, such as [%d, %d], or a step of %d from a multiple of it", p.Low, p.High, shards, shards, 2*shards, shards)
	}
}
