package stop

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// halving is the RuleState of asha and hyperband: successive halving without
// barriers, in one bracket or several.
type halving struct {
	problem  Problem
	eta      int
	spend    float64 // share of all epochs that the sweep may take
	brackets []*bracket
	shares   []uint64 // upper edges of the brackets' shares of [0, 2^64); the last reaches to its end
	trials   map[int64]*entrant
	last     int64 // highest number
}

// bracket is one ladder of rungs.
type bracket struct {
	epochs []int // of the rungs, ascending
	top    int   // epochs of a whole training
	rungs  [][]place
	below  []int // below[k]: trials on their way to rung k; the last is past all rungs
}

// place is a trial's on a rung, best first.
type place struct {
	value float64
	trial *entrant
}

// entrant is a trial on its bracket's ladder.
type entrant struct {
	number  int64
	bracket *bracket
	status  Status
	asked   Action
	level   int       // the rung it stands at or trains towards
	epoch   int       // last reported
	values  []float64 // at the rungs it has come to, up to its level
}

// newHalving lays the brackets' rungs out: one bracket from min_epochs up for asha, for hyperband
// further ones that begin higher.
func newHalving(s Settings, p Problem) *halving {
	h := &halving{problem: p, eta: s.Reduction, spend: s.Spend, trials: map[int64]*entrant{}}
	ladder := func(first int) {
		b := &bracket{top: s.MaxEpochs}
		for e := first; e < s.MaxEpochs; e *= s.Reduction { // max_epochs is below 2^30, reduction at most 1000: no overflow
			b.epochs = append(b.epochs, e)
		}
		b.rungs = make([][]place, len(b.epochs))
		b.below = make([]int, len(b.epochs)+1)
		h.brackets = append(h.brackets, b)
	}
	ladder(s.MinEpochs)
	if s.Rule == Hyperband {
		for e := s.MinEpochs * s.Reduction; e <= s.MaxEpochs; e *= s.Reduction {
			ladder(e)
		}
	}
	h.shares = shares(len(h.brackets), s.Reduction)
	return h
}

// shares divides trials among n brackets as hyperband's starting numbers do:
// the bracket that halves s times starts ceil(n/(s+1) * eta^s) trials.
func shares(n, eta int) []uint64 {
	weights := make([]float64, n)
	sum := 0.0
	for i := range weights {
		s := float64(n - 1 - i)
		weights[i] = math.Ceil(float64(n) / (s + 1) * math.Pow(float64(eta), s))
		sum += weights[i]
	}
	edges := make([]uint64, n)
	part := 0.0
	for i, w := range weights {
		part += w
		edges[i] = uint64(math.Floor(part/sum*(1<<53)))<<11 - 1
	}
	edges[n-1] = math.MaxUint64
	return edges
}

// of returns a trial's bracket: its number times the golden ratio falls into
// the brackets' shares evenly, however far the sweep is.
func (h *halving) of(number int64) *bracket {
	x := uint64(number) * 0x9e3779b97f4a7c15
	i, _ := slices.BinarySearch(h.shares, x)
	return h.brackets[i]
}

// ahead is how many of the next n trials begin in a bracket, at most.
func (h *halving) ahead(b *bracket, n int64) int64 {
	const look = 100_000
	if len(h.brackets) == 1 || n > look {
		return n
	}
	count := int64(0)
	for k := range n {
		if h.of(h.last+1+k) == b {
			count++
		}
	}
	return count
}

// Put implements RuleState.
func (h *halving) Put(t Trial) {
	s := h.trials[t.Number]
	if s == nil {
		s = &entrant{number: t.Number, bracket: h.of(t.Number)}
		h.trials[t.Number] = s
		h.last = max(h.last, t.Number)
	} else {
		h.leave(s)
	}
	s.status, s.asked, s.level = t.Status, t.Asked, min(t.Level, len(s.bracket.epochs))
	s.values = s.values[:0]
	best, at := math.NaN(), 0
	s.epoch = 0
	for _, r := range t.Reports {
		s.epoch = r.Epoch
		if h.problem.better(r.Value, best) {
			best = r.Value
		}
		for at < len(s.bracket.epochs) && at <= s.level && r.Epoch >= s.bracket.epochs[at] {
			s.values = append(s.values, best)
			at++
		}
	}
	h.enter(s)
}

// before puts the better place first; of equals the trial that was proposed earlier.
func (h *halving) before(a, b place) int {
	return cmp.Or(h.problem.compare(a.value, b.value), cmp.Compare(a.trial.number, b.trial.number))
}

// arrived reports whether a trial stands at the rung of its level.
func (s *entrant) arrived() bool { return len(s.values) > s.level }

// coming reports whether a trial may yet arrive there.
func (s *entrant) coming() bool { return s.status != Ended && !s.arrived() }

// enter puts a trial on its rungs, where its place among the others follows from its values.
func (h *halving) enter(s *entrant) {
	for k, v := range s.values {
		p := place{v, s}
		i, _ := slices.BinarySearchFunc(s.bracket.rungs[k], p, h.before)
		s.bracket.rungs[k] = slices.Insert(s.bracket.rungs[k], i, p)
	}
	if s.coming() {
		s.bracket.below[s.level]++
	}
}

// leave takes a trial off its rungs, before what it shows changes.
func (h *halving) leave(s *entrant) {
	for k, v := range s.values {
		i, _ := slices.BinarySearchFunc(s.bracket.rungs[k], place{v, s}, h.before)
		s.bracket.rungs[k] = slices.Delete(s.bracket.rungs[k], i, i+1)
	}
	if s.coming() {
		s.bracket.below[s.level]--
	}
}

// Decide implements RuleState.
func (h *halving) Decide(unproposed int64) []Decision {
	var out []Decision
	for _, b := range h.brackets {
		coming := h.ahead(b, unproposed) + int64(b.below[0])
		for k := range b.rungs {
			laps := int64(0)
			if k == len(b.rungs)-1 {
				laps = h.laps(b, unproposed)
			}
			var on int64 // how many may yet go on from here
			out, on = h.rung(out, b, k, coming, laps)
			coming = int64(b.below[k+1]) + on
		}
	}
	slices.SortFunc(out, func(a, b Decision) int { return cmp.Compare(a.Trial, b.Trial) })
	return out
}

// laps is how many trials beyond the quota may go on from the last rung, at
// most, so that the sweep keeps to the epochs it may spend: those trained, those
// that trials under way train up to where they are compared next, and those that
// unproposed ones will train up to the first rung.
func (h *halving) laps(b *bracket, unproposed int64) int64 {
	last := len(b.epochs) - 1
	if h.spend == 0 || last < 0 {
		return 0
	}
	total := float64(int64(len(h.trials))+unproposed) * float64(b.top)
	used := float64(unproposed) * float64(b.epochs[0])
	for _, s := range h.trials {
		used += float64(s.epoch)
		if s.coming() {
			to := b.top
			if s.level <= last {
				to = b.epochs[s.level]
			}
			used += math.Max(0, float64(to-s.epoch))
		}
	}
	left := math.Floor(h.spend*total+1e-9) - used
	return int64(math.Max(0, left/float64(b.top-b.epochs[last])))
}

// rung decides for the trials that stand at rung k. It may get so many more that
// are coming, at most; laps may go on from it beyond its quota once none is.
func (h *halving) rung(out []Decision, b *bracket, k int, coming, laps int64) ([]Decision, int64) {
	places := b.rungs[k]
	n := int64(len(places))
	quota, ever := n/int64(h.eta), (n+coming)/int64(h.eta)
	if n+coming > 0 {
		ever = max(ever, 1)
	}
	if coming == 0 {
		quota = ever
	}
	gone := int64(0) // have gone on
	for _, p := range places {
		if p.trial.level > k {
			gone++
		}
	}
	ahead := gone // and those that come before the next place
	alive := int64(0)
	for i, p := range places {
		t := p.trial
		if t.level > k || t.status == Ended || t.asked == Stop {
			continue
		}
		rank := int64(i)
		goes := func(why string) {
			out = append(out, Decision{t.number, Resume, fmt.Sprintf("%s %s is %s of %d at epoch %d: %s to epoch %d",
				h.problem.Metric, format(p.value), nth(rank+1), n, b.epochs[k], why, b.next(k))})
		}
		switch {
		case !finite(p.value):
			out = append(out, Decision{t.number, Stop, fmt.Sprintf("%s has no finite value up to epoch %d", h.problem.Metric, b.epochs[k])})
			continue
		case t.status == Paused && rank < quota && ahead < quota:
			goes("continues")
		case t.status == Paused && (rank >= ever || ahead >= ever) && laps <= 0:
			// Who stands well and is late finds the places given to those that came before.
			why := fmt.Sprintf(": only the best %d continue", ever)
			if ever == 1 {
				why = ": only the best one continues"
			}
			if rank < ever {
				why = fmt.Sprintf(", but all %d places were taken", ever)
				if ever == 1 {
					why = ", but the one place was taken"
				}
			}
			out = append(out, Decision{t.number, Stop, fmt.Sprintf("%s %s is %s of %d at epoch %d%s",
				h.problem.Metric, format(p.value), nth(rank+1), n, b.epochs[k], why)})
			continue
		case t.status == Paused && (rank >= ever || ahead >= ever):
			if coming == 0 {
				goes("epochs are left, so it continues")
			}
			laps--
			continue
		case t.status != Paused && t.asked == 0:
			out = append(out, Decision{t.number, Pause, isRung(b.epochs[k], h.eta)})
		}
		ahead++
		alive++
		laps-- // to go on by quota takes the same epochs
	}
	return out, max(0, min(ever-gone, alive+coming))
}

// isRung is why a trial is paused, for people.
func isRung(epoch, eta int) string {
	return fmt.Sprintf("paused at the rung of epoch %d: the best 1 of %d continues", epoch, eta)
}

// next is the epoch that a trial which goes on from rung k trains to.
func (b *bracket) next(k int) int {
	if k+1 < len(b.epochs) {
		return b.epochs[k+1]
	}
	return b.top
}

// nth is 1st, 2nd, 3rd, 11th.
func nth(n int64) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprintf("%d%s", n, suffix)
}
