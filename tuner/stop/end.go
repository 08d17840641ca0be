package stop

// End is where a run ends by itself: after Epoch it is paused or stopped,
// whatever it reported there.
type End struct {
	Epoch  int
	Action Action // Pause or Stop
	Reason string // that of the Decision
}

// End returns where a run that begins now ends, as far as that does not depend on
// what it or others will report: at the rung of its level, at the end of its
// segment. It is what Decide would say of a report of that epoch, known
// beforehand, so that nobody has to be told in time. False where the run goes on
// to the last epoch of its training, unless it is told otherwise on the way:
// median, percentile and patience compare what has been reported.
//
// The level is how often the rule has let the trial go on; from is the epoch of
// another trial's checkpoint that it began from, 0 for one from scratch.
func (s Settings) End(number int64, level, from int) (End, bool) {
	switch s.Rule {
	case ASHA, Hyperband:
		if b := newHalving(s, Problem{}).of(number); level < len(b.epochs) {
			return End{b.epochs[level], Pause, isRung(b.epochs[level], s.Reduction)}, true
		}
	case Segment:
		if last := from + s.Interval; last < s.MaxEpochs {
			return End{last, Stop, s.trained(last)}, true
		}
	}
	return End{}, false
}

// Expected is about how many epochs a sweep of so many trials trains under the
// rule, each of them epochs long unless it is stopped. asha and hyperband promote
// by quotas, which are known beforehand; what trials report does not change their
// sum, trials that diverge aside. For the other rules it is the most there can be.
func (s Settings) Expected(trials, epochs int64) int64 {
	if s.Rule != ASHA && s.Rule != Hyperband || int64(s.MaxEpochs) > epochs {
		return trials * epochs
	}
	h := newHalving(s, Problem{})
	const look = 100_000 // trials whose brackets are looked up one by one
	counts := make([]int64, len(h.brackets))
	for i, b := range h.brackets {
		if len(h.brackets) == 1 {
			counts[i] = trials
			continue
		}
		for n := int64(1); n <= min(trials, look); n++ {
			if h.of(n) == b {
				counts[i]++
			}
		}
		if trials > look {
			counts[i] = int64(float64(counts[i]) / look * float64(trials))
		}
	}
	sum := int64(0)
	for i, b := range h.brackets {
		left, from := counts[i], int64(0)
		for _, rung := range b.epochs {
			sum += left * (int64(rung) - from)
			// A rung that nobody else can reach lets its best one go on.
			left, from = min(left, max(1, left/int64(s.Reduction))), int64(rung)
		}
		sum += left * (int64(b.top) - from)
	}
	// What promotions leave of the share goes to last laps.
	return max(sum, int64(s.Spend*float64(trials)*float64(epochs)))
}
