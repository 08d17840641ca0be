package simtrainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
)

// safe is what the host has acknowledged.
type safe struct {
	mu             sync.Mutex
	reported, kept int
}

func (s *safe) note(c trainerproto.Control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported, s.kept = max(s.reported, c.Reported), max(s.kept, c.Kept)
}

func (s *safe) get() (reported, kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reported, s.kept
}

// What a tail may carry: flags.
const (
	tailStop     = 1 << iota // this member was asked to stop
	tailPause                // or to pause
	tailFinished             // all is reported: the others can go
)

// member is a training's part in a group.
type member struct {
	*training
	last  int // epoch
	group *group.Group
	state state
	asked byte // flags of a verdict
	first bool // it reports
	sent  int  // last epoch reported, by this member or an earlier one
	kept  int  // the same of checkpoints
	began time.Time
	ready time.Time // when the step in hand is computed
}

// together trains as a member of a group, from the end of an epoch to that of the
// last one. An empty reason is of a member whose done event is sent already.
func (t *training) together(epoch, last int) (string, error) {
	t.safe.note(trainerproto.Control{Reported: epoch, Kept: epoch})
	step := int64(epoch) * epochSteps
	m := &member{training: t, last: last, state: state{Round: step, Step: step, Weights: t.weights.bytes()}, began: time.Now(), ready: time.Now()}
	if epoch > 0 {
		m.state.Ends = []epochEnd{{epoch, m.state.Weights}}
	}
	done := make(chan struct{})
	defer close(done)
	go t.live(done)
	receiver := links.NewReceiver(os.NewFile(trainerproto.LinksFD, "links"))
	defer receiver.Close()
	if reason, err := m.join(receiver); reason != "" || err != nil {
		return reason, err
	}
	defer m.group.Close()
	return m.run()
}

// live shows that this process is no hung one.
func (t *training) live(done <-chan struct{}) {
	tick := time.NewTicker(trainerproto.AlivePause)
	defer tick.Stop()
	for t.w.Send(trainerproto.Event{Kind: trainerproto.EventAlive}) == nil {
		select {
		case <-tick.C:
		case <-done:
			return
		}
	}
}

// join makes the member one of its group. The reason is of one that was asked to
// leave meanwhile.
func (m *member) join(receiver *links.Receiver) (reason string, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	joined := make(chan error, 1)
	go func() {
		g, err := group.Start(ctx, group.Config{Job: *m.job.Group, Links: receiver, Step: m.state.Round, State: m, OnView: m.view,
			Engine: fmt.Sprintf("simtrainer 1, seed %d, landscape %d, %d epochs", m.job.Seed, m.set.Landscape, m.set.Epochs)})
		m.group = g
		joined <- err
	}()
	left := ""
	for {
		select {
		case err := <-joined:
			if left != "" || err != nil && ctx.Err() != nil {
				if err == nil {
					m.group.Close()
				}
				if left == "gone" {
					return "", errGone
				}
				return left, nil
			}
			return "", ended(err, m.job.Group.Join)
		case v := <-m.verdicts:
			if v == "gone" {
				left = v
				cancel()
			} else if m.verdict(v) {
				left = trainerproto.DoneLeft
				cancel()
			}
		case <-m.signals:
			if !m.set.IgnoreStop {
				left = trainerproto.DoneLeft
				cancel()
			}
		}
	}
}

// verdict notes what the agent asks for; true is to leave.
func (m *member) verdict(v string) bool {
	switch {
	case m.set.IgnoreStop:
	case v == "stop":
		m.asked |= tailStop
	case v == "pause":
		m.asked |= tailPause
	case v == "leave":
		return true
	}
	return false
}

var errGone = errors.New("standard input was closed: the agent is gone")

// ended is an error of the group as the protocol has it.
func ended(err error, joining bool) error {
	var mismatch *group.Mismatch
	var cut *group.CutOff
	switch {
	case errors.As(err, &mismatch) && !joining:
		return &fault{trainerproto.FailedBadSpec, err.Error()}
	case errors.As(err, &mismatch), errors.As(err, &cut):
		return &fault{trainerproto.FailedCutOff, err.Error()}
	}
	return err
}

// view tells of a view that this member is in, as all its members do.
func (m *member) view(v group.View) {
	if first := v.Rank == 0; first && !m.first {
		m.sent, m.kept = m.safe.get()
	}
	if m.first = v.Rank == 0; v.Rank >= 0 {
		m.w.Send(trainerproto.Event{Kind: trainerproto.EventView, View: &trainerproto.View{Number: v.Number, Members: v.Members, Step: v.Step, Reason: v.Reason, Pause: v.Pause.Seconds()}})
	}
}

// Write hands the state over.
func (m *member) Write(w io.Writer) error { return json.NewEncoder(w).Encode(m.state) }

// Read takes it over.
func (m *member) Read(r io.Reader) error {
	s, err := decodeState(r)
	if err == nil {
		m.state = *s
	}
	return err
}

// run trains step by step.
func (m *member) run() (string, error) {
	sums, err := group.NewSlices([]int{nWeights}, m.shards, true)
	if err != nil {
		return "", err
	}
	defer sums.Free()
	defer m.group.Close() // before: it uses them
	for {
		if m.first {
			if err := m.flush(); err != nil {
				return "", err
			}
		}
		tail := m.asked
		if m.state.Closing != "" && m.first {
			if err := m.w.Send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: m.state.Closing}); err != nil {
				return "", err
			}
			tail |= tailFinished
		}
		tails, err := m.step(sums, tail)
		var changed *group.Changed
		switch {
		case errors.As(err, &changed):
			continue
		case errors.Is(err, group.ErrLeft):
			return trainerproto.DoneLeft, nil
		case err != nil:
			return "", ended(err, false)
		}
		if reason, err := m.committed(sums, tails); reason != "" || err != nil {
			return reason, err
		}
		if tail&tailFinished != 0 {
			return "", nil
		}
	}
}

// step is one round of the group: a step of the training, or once that is at its
// end tails alone.
func (m *member) step(sums *group.Slices, tail byte) (map[int][]byte, error) {
	if m.state.Closing != "" {
		return m.group.Begin(m.state.Round+1, m.shards, nil).Commit([]byte{tail})
	}
	v := m.group.View()
	sums.Begin()
	r := m.group.Begin(m.state.Round+1, m.shards, sums)
	// A member takes as long as its share of the shards.
	share := float64(v.To-v.From) / float64(m.shards)
	m.ready = m.ready.Add(time.Duration(m.set.EpochSeconds * share / epochSteps * float64(time.Second)))
	if now := time.Now(); m.ready.Before(now.Add(-time.Second)) {
		m.ready = now // it is not made up for
	}
	if err := m.pass(r); err != nil {
		return nil, err
	}
	if !r.Changed() {
		var w weights
		if err := w.set(m.state.Weights); err != nil {
			return nil, err
		}
		for k, sum := range w.sums(m.state.Step+1, v.From, v.To, m.shards) {
			c, _ := sums.Contribution(0, k)
			copy(c, sum)
		}
		sums.Done(0)
	}
	return r.Commit([]byte{tail | m.asked})
}

// pass waits until the step is computed, or to be done again, and takes what the
// agent asks for meanwhile.
func (m *member) pass(r *group.Round) error {
	const look = 5 * time.Millisecond
	for {
		wait := min(time.Until(m.ready), look)
		timer := time.NewTimer(max(wait, 0))
		select {
		case <-timer.C:
		case v := <-m.verdicts:
			if v == "gone" {
				timer.Stop()
				return errGone
			}
			if m.verdict(v) {
				m.group.Leave()
			}
		case <-m.signals:
			switch {
			case m.set.IgnoreStop:
			case len(m.group.View().Members) == 1:
				m.asked |= tailPause // there is nobody to go on
			default:
				m.group.Leave()
			}
		}
		timer.Stop()
		if r.Changed() || wait <= 0 {
			return nil
		}
	}
}

// committed takes a step's sums and tails. The reason is of a member that is not
// needed any more.
func (m *member) committed(sums *group.Slices, tails map[int][]byte) (string, error) {
	m.state.Round++
	asked := byte(0)
	for _, tail := range tails {
		if len(tail) > 0 {
			asked |= tail[0]
		}
	}
	if m.state.Closing != "" {
		if asked&tailFinished != 0 && !m.first {
			return trainerproto.DoneLeft, nil
		}
		return "", nil
	}
	var w weights
	if err := w.set(m.state.Weights); err != nil {
		return "", err
	}
	w.move(sums.Result(0))
	m.state.Step++
	m.state.Weights = w.bytes()
	if m.state.Step%epochSteps == 0 {
		epoch := int(m.state.Step / epochSteps)
		m.state.Ends = append(m.state.Ends, epochEnd{epoch, m.state.Weights})
		if err := m.fail(epoch); err != nil {
			return "", err
		}
		if !m.first {
			if err := m.divergence(epoch); err != nil {
				return "", err
			}
		}
		m.forget()
		if epoch == m.last {
			m.state.Closing = trainerproto.DoneFinished
			if m.last < m.set.Epochs {
				m.state.Closing = trainerproto.DonePaused
			}
		}
	}
	switch {
	case m.state.Closing != "":
	case asked&tailStop != 0:
		m.state.Closing = trainerproto.DoneStopped
	case asked&tailPause != 0:
		m.state.Closing = trainerproto.DonePaused
	}
	return "", nil
}

// forget drops the ends of epochs that nobody has to write again.
func (m *member) forget() {
	reported, kept := m.safe.get()
	newest := m.state.Ends[len(m.state.Ends)-1].Epoch
	m.state.Ends = slices.DeleteFunc(m.state.Ends, func(e epochEnd) bool {
		return e.Epoch < newest && e.Epoch <= reported && (e.Epoch <= kept || !m.due(e.Epoch, m.last))
	})
}

// flush reports the epochs that have ended, and writes their checkpoints; once the
// training closes that of the last epoch, too.
func (m *member) flush() error {
	for i, e := range m.state.Ends {
		if e.Epoch > m.sent {
			if err := m.report(e.Epoch, time.Since(m.began).Seconds(), m.group.Pace()); err != nil {
				return err
			}
			m.sent, m.began = e.Epoch, time.Now()
		}
		closes := m.state.Closing != "" && i == len(m.state.Ends)-1 && m.set.CheckpointEvery > 0
		if e.Epoch > m.kept && (m.due(e.Epoch, m.last) || closes) {
			var w weights
			if err := w.set(e.Weights); err != nil {
				return err
			}
			if err := m.write(e.Epoch, &w); err != nil {
				return err
			}
			m.kept = e.Epoch
		}
	}
	return nil
}
