package sweep

import (
	"go.yaml.in/yaml/v3"

	"atelier/common/spec"
	"atelier/tuner/pbt"
	"atelier/tuner/stop"
)

// Beyond half the worst would be among the best.
const (
	maxShare   = 0.5
	maxPerturb = 1
)

// population reads what search_method pbt needs: its members are the sweep's
// parallelism, its segments end by a rule of their own, and its budget is as
// many trials as there are segments.
func (r *reader) population(root *yaml.Node, given map[string]*yaml.Node, s *spec.Spec) {
	n := given["population"]
	if s.SearchMethod != pbt.Name {
		if n != nil && s.SearchMethod != "" {
			r.fail(n, "population", "belongs to search_method pbt, not %s; drop it", s.SearchMethod)
		}
		return
	}
	before := len(r.errs)
	for _, other := range []struct{ key, why string }{
		{"stopping", "its segments end by a rule of their own"}, {"warm_start", "its members begin from scratch"},
	} {
		if at := given[other.key]; at != nil {
			r.fail(at, other.key, "does not go with search_method pbt: %s; drop it", other.why)
		}
	}
	if s.Parallelism < 2 {
		r.fail(root, "parallelism", "%d is not a population; give search_method pbt 2 members or more", s.Parallelism)
	}
	if len(s.Objectives) > 1 {
		r.fail(root, "objectives", "search_method pbt compares its members by one objective; give objective")
	}
	p := pbt.Default()
	// Segments are counted in epochs of the whole training, which all members share.
	if p.Epochs = trainingEpochs(s); p.Epochs == 0 {
		r.fail(root, "training.epochs", "is missing or differs from trial to trial; search_method pbt needs to know how far its members train")
		return
	}
	p.Interval = max(1, p.Epochs/10)
	if n != nil && r.mapping(n, "population", "{interval: 3, share: 0.25, perturb: 0.1}") {
		for _, e := range r.entriesOf(n, "population", children("population")) {
			key := "population." + e.name
			switch e.name {
			case "interval":
				i, _ := r.whole(e.value, key, 1, int64(p.Epochs))
				p.Interval = max(1, int(i))
			case "share":
				p.Share = r.part(e.value, key, maxShare)
			case "perturb":
				p.Perturb = r.part(e.value, key, maxPerturb)
			}
		}
	}
	if len(r.errs) > before {
		return
	}
	s.Population = (*spec.Population)(&p)
	s.StoppingJSON = stop.Settings{Rule: stop.Segment, Interval: p.Interval, MaxEpochs: p.Epochs}.JSON()
	// More trials than segments could never be made; fewer end the sweep earlier.
	if all := s.Parallelism * p.Segments(); s.Budget.Trials == 0 || s.Budget.Trials > all {
		s.Budget.Trials = all
	}
}

// part reads a number above 0 and at most high. The comparison is turned so that NaN is refused.
func (r *reader) part(n *yaml.Node, key string, high float64) float64 {
	var f float64
	if n.Kind != yaml.ScalarNode || n.Decode(&f) != nil || !(f > 0 && f <= high) {
		r.fail(n, key, "want a number above 0 and at most %g, not %s", high, shown(n))
		return high
	}
	return f
}
