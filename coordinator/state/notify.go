package state

import (
	"slices"
	"strings"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// A sweep's end is posted to an address that a person gave. The leader's duty posts
// (duty/notify) and writes each attempt into the log, so that a new leader goes on
// where the last one was. It is posted once at least: a leader that ends between the
// answer and the log leaves it to be posted again.

// PendingNotification reports whether the sweep's end is still to be posted, and how many
// attempts there were.
func (s *Sweep) PendingNotification() (attempts int32, pending bool) {
	n := s.Notification
	if n == nil || !s.Ended() || s.DeletedMS != 0 || len(n.On) > 0 && !slices.Contains(n.On, s.Status) {
		return 0, false
	}
	if n.EndMS != s.EndedMS {
		return 0, true
	}
	return n.Attempts, !n.Done
}

// validNotification checks what a command or a snapshot carries. What a good address is
// the API has checked.
func validNotification(sweep string, n *trial.Notification) error {
	switch {
	case len(n.URL) > maxURL || unfit(n.URL, maxURL, false) != "" || !strings.HasPrefix(n.URL, "http://") && !strings.HasPrefix(n.URL, "https://"):
		return invalid("notify of sweep %s: an address of http:// or https://, of at most %d bytes", sweep, maxURL)
	case !sortedUnique(n.On) || len(n.Error) > maxMessage || n.Attempts < 0:
		return invalid("notify of sweep %s: %d states, %d attempts", sweep, len(n.On), n.Attempts)
	}
	for _, on := range n.On {
		if !on.Over() {
			return invalid("notify of sweep %s: %s is not an end of a sweep", sweep, on)
		}
	}
	return nil
}

// setNotification says where a sweep's end is posted. One that has ended already is posted
// now: who came a moment late is told all the same.
func (m *Machine) setNotification(now int64, c *logv1.SetNotification, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	var next *trial.Notification
	if c.GetUrl() != "" {
		next = newNotification(&atelierv1.Notification{Url: c.GetUrl(), On: c.GetOn()})
		if r.Err = validNotification(s.ID, next); r.Err != nil {
			return
		}
	} else if s.Notification == nil {
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	s.Notification = next
	m.setSweep(now, s, s.Status)
}

// recordNotification writes an attempt down. One of another end or to another address, and
// one that is known, is no error: the leader that made it may be late, and a person may have
// corrected the address while it was under way.
func (m *Machine) recordNotification(now int64, c *logv1.RecordNotification, r *Result) {
	s := m.find(c.GetId(), r)
	if s == nil {
		return
	}
	attempts, pending := s.PendingNotification()
	if !pending || s.EndedMS != c.GetEndMs() || c.GetAttempt() != attempts+1 || m.rules >= 3 && c.GetUrl() != s.Notification.URL {
		r.Outcome = trial.OutcomeAlready
		return
	}
	s, _ = m.sweep(s.ID)
	n := *s.Notification
	n.EndMS, n.Attempts, n.LastMS, n.Error = s.EndedMS, c.GetAttempt(), now, cut(c.GetError())
	n.Done = n.Error == "" || c.GetLast()
	s.Notification = &n
	m.setSweep(now, s, s.Status)
}

// newNotification is the inverse of wire.ToNotification, with states in order.
func newNotification(p *atelierv1.Notification) *trial.Notification {
	n := wire.Notification(p)
	if n != nil {
		slices.Sort(n.On)
		n.On = slices.Compact(n.On)
	}
	return n
}
