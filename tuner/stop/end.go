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
