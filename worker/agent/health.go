package agent

import (
	"fmt"
	"time"
)

// Trouble is why this agent works for no cluster now, in words for people; "" =
// it does: a leader has taken it in and answered within the term of a lease.
func (a *Agent) Trouble() string {
	if a.isRejected() {
		return "refused by the coordinators, ending: " + a.rejectCause.Error()
	}
	cause := ""
	if why := a.silence.Load(); why != nil {
		cause = ": " + *why
	}
	switch {
	case a.nameTaken.Load():
		return "not taken in by the coordinators" + cause
	case !a.isAdmitted():
		return "no leader has answered yet" + cause
	}
	if since := bootTime() - time.Duration(a.heard.Load()); since > a.term() {
		return fmt.Sprintf("no leader has answered for %s%s", since.Round(time.Second), cause)
	}
	return ""
}

// answer notes that a leader has taken a heartbeat.
func (a *Agent) answer() {
	a.heard.Store(int64(bootTime()))
	a.silence.Store(nil)
}

// unanswered notes why no heartbeat was taken.
func (a *Agent) unanswered(why string) { a.silence.Store(&why) }
