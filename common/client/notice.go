package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Notice says that a call waits because no coordinator that leads answers.
type Notice struct {
	Found  []Finding     // what stands in the way at each address, in the order tried
	Survey *Survey       // of all coordinators, where one answers that has no leader; else nil
	Left   time.Duration // until the call is given up; 0 = with its context
}

// Text is the notice for people.
func (n *Notice) Text() string {
	trying := "; trying until one answers"
	if n.Left > 0 {
		trying = fmt.Sprintf("; trying for %d s more", max(1, int(n.Left.Round(time.Second)/time.Second)))
	}
	if n.Survey != nil {
		return n.Survey.Health() + trying
	}
	var causes []string
	at := map[string][]string{}
	for _, f := range n.Found {
		cause := f.Brief()
		if at[cause] == nil {
			causes = append(causes, cause)
		}
		at[cause] = append(at[cause], f.Addr)
	}
	if len(causes) == 1 {
		return fmt.Sprintf("no coordinator at %s yet (%s)%s", strings.Join(at[causes[0]], ", "), causes[0], trying)
	}
	for i, cause := range causes {
		causes[i] = strings.Join(at[cause], ", ") + ": " + cause
	}
	return "no coordinator yet (" + strings.Join(causes, "; ") + ")" + trying
}

const (
	// A change of leaders is over in less, and nobody has to hear of it.
	noticeAfter = time.Second
	// noticeEvery is the time between two notices of one call.
	noticeEvery = time.Second
	// A call whose node is well, such as a long poll, is looked at less often.
	noticeCalm = 4 * time.Second
)

// WithNotice has f called while a call waits for somebody to answer: a second
// after it began, then every second, and with nil once it no longer waits. f
// is called by one goroutine at a time, and never by calls that merely take long
// at a node that is well.
func WithNotice(f func(*Notice)) Option { return func(o *options) { o.notice = f } }

// notices keeps the calls of f apart, and knows how many calls wait.
type notices struct {
	mu      sync.Mutex
	waiting int
}

// raise gives a notice; first says that the call gave none before.
func (n *notices) raise(f func(*Notice), one *Notice, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if first {
		n.waiting++
	}
	f(one)
}

// lower says that a call which gave notice waits no longer.
func (n *notices) lower(f func(*Notice)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.waiting--; n.waiting == 0 {
		f(nil)
	}
}

// lookout watches over one call and gives notice while nobody answers it. The
// call ends it with stop, after which no notice of it stands.
func (c *Client) lookout(ctx context.Context, seen *findings) (stop func()) {
	f := c.opts.notice
	if f == nil || ctx.Value(inquiry{}) != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	timer := time.AfterFunc(noticeAfter, func() {
		defer close(over)
		raised := false
		for ctx.Err() == nil {
			found, survey := c.obstacles(ctx, seen)
			every := noticeEvery
			switch {
			case ctx.Err() != nil:
			case len(found) > 0:
				one := &Notice{Found: found, Survey: survey}
				if deadline := seen.givesUpAt(); !deadline.IsZero() {
					one.Left = max(time.Until(deadline), time.Millisecond)
				}
				c.notices.raise(f, one, !raised)
				raised = true
			case raised:
				c.notices.lower(f)
				raised = false
			default:
				every = noticeCalm
			}
			pause(ctx, every)
		}
		if raised {
			c.notices.lower(f)
		}
	})
	return func() {
		cancel()
		if !timer.Stop() {
			<-over
		}
	}
}

// obstacles is what stands in a call's way now: nothing while its attempt is at
// a node that answers and knows a leader.
func (c *Client) obstacles(ctx context.Context, seen *findings) (found []Finding, all *Survey) {
	found = seen.list()
	if addr := seen.underWay(); addr != "" {
		node, one := c.station(ctx, addr)
		switch {
		case node != nil && node.LeaderID != "":
			return nil, nil
		case node != nil:
			one = Finding{addr, NoLeader, errNoneKnown}
		}
		found = slices.DeleteFunc(found, func(o Finding) bool { return o.Addr == addr })
		found = append(found, one)
	}
	if slices.ContainsFunc(found, func(o Finding) bool { return o.Kind == NoLeader }) {
		all = c.Survey(ctx)
		if all.Leader != "" { // meanwhile there is one
			return nil, nil
		}
		if voters, _, _ := all.Count(); voters == 0 {
			all = nil // of an earlier version, or not taken in yet
		}
	}
	return found, all
}
