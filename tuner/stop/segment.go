package stop

import "fmt"

// segment is the RuleState of the rule of that name: every trial trains so many
// epochs from where it began and leaves the rest to others that go on from its
// checkpoint.
type segment struct {
	set  Settings
	wish wishes
}

// Put implements RuleState. A trial at the last epoch ends by itself.
func (s *segment) Put(t Trial) {
	delete(s.wish, t.Number)
	if t.Status == Paused || t.Status == Ended || t.Asked == Stop || len(t.Reports) == 0 {
		return
	}
	if last := t.Reports[len(t.Reports)-1].Epoch; last >= t.From+s.set.Interval && last < s.set.MaxEpochs {
		s.wish[t.Number] = Decision{t.Number, Stop, s.set.trained(last)}
	}
}

// trained is why a segment ends, for people.
func (s Settings) trained(epoch int) string {
	return fmt.Sprintf("its segment of %d epochs is trained, up to epoch %d", s.Interval, epoch)
}

// Decide implements RuleState.
func (s *segment) Decide(int64) []Decision { return s.wish.list() }
