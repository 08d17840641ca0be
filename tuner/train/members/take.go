package members

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/child"
	"atelier/common/trainerproto"
)

// take is called for each event of a member, and for its end.
func (w *crew) take(h heard) {
	m, e := h.m, h.e
	switch e.Kind {
	case "":
		w.lose(m)
	case trainerproto.EventDone, trainerproto.EventFailed:
		if m.last.Kind == "" {
			m.last = e
		}
	case trainerproto.EventView:
		w.agreed(e)
	case trainerproto.EventEpoch:
		// Whoever reports after another may repeat what that one has reported.
		if e.Epoch > w.reported && w.pass(e) {
			w.reported = e.Epoch
			w.tell(trainerproto.Control{Reported: w.reported, Kept: w.kept})
		}
	case trainerproto.EventCheckpoint:
		if e.Epoch > w.kept && e.Epoch <= w.reported && w.pass(e) {
			w.kept = e.Epoch
			w.tell(trainerproto.Control{Reported: w.reported, Kept: w.kept})
		}
	case trainerproto.EventProgress:
		if e.Message == "" || !slices.Contains(w.said, e.Message) { // before the first step each speaks for itself
			w.pass(e)
		}
		if e.Message != "" {
			w.said = append(w.said, e.Message)
		}
	}
}

// pass hands an event on; a fault of who takes it ends the group.
func (w *crew) pass(e trainerproto.Event) bool {
	if w.fault != nil {
		return false
	}
	if err := w.On(e); err != nil {
		w.fault = err
		w.finish()
		for _, m := range w.live {
			m.Kill()
		}
		return false
	}
	return true
}

// agreed notes who takes part from a view on.
func (w *crew) agreed(e trainerproto.Event) {
	if e.View.Number <= w.view {
		return // said again by another
	}
	w.view = e.View.Number
	for _, m := range w.live {
		if !m.in && slices.Contains(e.View.Members, m.id) {
			m.in = true
			w.Changed(m.name()+" takes part", w.present())
		}
	}
	w.pass(e)
}

// present is how many members take part.
func (w *crew) present() (n int) {
	for _, m := range w.live {
		if m.in {
			n++
		}
	}
	return n
}

// lose takes a member that has ended out of the group, and settles what follows.
func (w *crew) lose(m *member) {
	w.live = slices.DeleteFunc(w.live, func(o *member) bool { return o == m })
	if w.end == nil || weight(m) >= w.weight {
		w.end, w.weight = &End{Last: m.last, By: m.Trainer, Place: m.place, Silent: m.silent}, weight(m)
	}
	left := w.present()
	switch {
	case w.over:
	case weight(m) == fatal, left == 0:
		// All share the fault; or it was the last one, and what it leaves is its checkpoint.
		w.finish()
		w.stop()
	case m.last.Kind == trainerproto.EventDone:
		w.finish() // the others are about to end
	default:
		w.vacant = append(w.vacant, m.place)
		w.Changed(fmt.Sprintf("%s %s; %s", m.name(), how(m), others(left)), left)
	}
}

// Weights of a member's end: which of several is that of the training.
const (
	newcomer = iota // lost before it took part
	apart           // it left while another reports
	lost
	fatal    // a failure that all members share
	decisive // a done event of the one that reports
)

func weight(m *member) int {
	switch e := m.last; {
	case e.Kind == trainerproto.EventDone && e.Reason == trainerproto.DoneLeft:
		return apart
	case e.Kind == trainerproto.EventDone:
		return decisive
	case !m.in:
		return newcomer
	case e.Kind == trainerproto.EventFailed && slices.Contains([]string{trainerproto.FailedBadSpec, trainerproto.FailedDataMissing,
		trainerproto.FailedDiverged, trainerproto.FailedDiskFull}, e.Class):
		return fatal
	}
	return lost
}

// how a member was lost, for people.
func how(m *member) string {
	switch {
	case m.silent:
		return "did not answer and was ended"
	case m.broken != nil:
		return "was ended: " + m.broken.Error()
	case m.last.Kind == trainerproto.EventFailed:
		text, _, _ := strings.Cut(m.last.Message, "\n")
		return "failed (" + strings.ReplaceAll(m.last.Class, "_", " ") + ": " + text + ")"
	case m.last.Kind == trainerproto.EventDone:
		return "left"
	case m.Killed():
		return "was killed from outside (SIGKILL)"
	}
	return "ended (" + m.State().String() + ")"
}

func others(n int) string {
	if n == 1 {
		return "the other one continues"
	}
	return fmt.Sprintf("the other %d continue", n)
}

// fill starts a trainer for a place that is vacant: one at a time, until it takes
// part, and no more of them in a window than are allowed.
func (w *crew) fill(ctx context.Context) {
	if w.over || len(w.vacant) == 0 || w.starting > 0 || w.present() < len(w.live) || w.retry != nil {
		return
	}
	now := time.Now()
	w.times = slices.DeleteFunc(w.times, func(t time.Time) bool { return now.Sub(t) >= window })
	if len(w.times) >= replacements {
		w.retry = time.After(window - now.Sub(w.times[0]))
		w.Changed(fmt.Sprintf("%d members were replaced within %s: no further one for now", len(w.times), window), w.present())
		return
	}
	w.times = append(w.times, now)
	w.start(ctx, w.vacant[0])
	w.vacant = w.vacant[1:]
}

// arrive takes a trainer that was started in the place of a lost one.
func (w *crew) arrive(s started) {
	w.starting--
	switch {
	case s.err != nil && w.over:
	case s.err != nil:
		w.absent(s)
	case w.over:
		discard(s.t)
	default:
		m := &member{Trainer: s.t, id: w.next, place: s.place}
		w.next++
		before := slices.Clone(w.live)
		w.live = append(w.live, m)
		w.engage(m, before, true)
	}
}

// finish lets nobody come any more.
func (w *crew) finish() {
	w.over = true
	w.cancel()
	w.vacant = nil
}

// stop asks all that are left to end, and ends them after a grace time.
func (w *crew) stop() {
	for _, m := range w.live {
		m.Stop(grace)
	}
}

// tell sends a control line to all members. One that does not take it is dying, or
// found silent.
func (w *crew) tell(c trainerproto.Control) {
	for _, m := range w.live {
		m.Send(c)
	}
}

// discard ends a trainer that has no job.
func discard(t *child.Trainer) {
	t.Kill()
	<-t.Exited()
	t.Close()
}
