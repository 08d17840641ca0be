package agent_test

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"atelier/common/trainerproto"
	"atelier/common/trial"
	"atelier/worker/agent"
)

// TestMemberThatIsKilled: its end is its own, by what happened to it, and the others
// see its links end.
func TestMemberThatIsKilled(t *testing.T) {
	c, s, _ := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(1).view(1, 1, 2, 3)
	c.until("the view came", func() bool { return len(c.events) == 1 })
	syscall.Kill(s.member(1).pid, syscall.SIGKILL) // it reports, and is gone all the same
	for _, id := range others(1) {
		s.member(id).linkEnded(1)
	}
	if end, whole := c.ended(1); whole || end.Exit != trial.ExitKilled {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	// The next one reports in its place, and its end is the run's.
	s.member(2).view(2, 2, 3)
	s.member(2).send(trainerproto.Event{Kind: trainerproto.EventEpoch, Epoch: 4, Metrics: trainerproto.Metrics{{Name: "val_loss", Value: 0.5}}})
	s.member(2).told(trainerproto.Control{Reported: 4})
	s.member(3).done(trainerproto.DoneLeft)
	if end, whole := c.ended(3); whole || end.Exit != trial.ExitReleased {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	s.member(2).done(trainerproto.DoneFinished)
	if end, whole := c.ended(2); !whole || end.Exit != trial.ExitFinished {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	c.with(func() {
		var views []*trial.View
		for _, e := range c.events {
			if e.View != nil {
				views = append(views, e.View)
			}
			if e.Token != 40 || e.Member < 1 {
				t.Errorf("an event of %+v", e.LeaseRef)
			}
		}
		if len(views) != 2 || !slices.Equal(views[1].Members, []int32{2, 3}) || views[0].Step != 7 || views[0].PauseMS != 250 || views[0].Reason != "start" {
			t.Errorf("views %+v", views)
		}
	})
}

// TestMemberThatHangs is ended by name, in spite of being stopped; one that is being
// prepared is not.
func TestMemberThatHangs(t *testing.T) {
	reg := prometheus.NewRegistry()
	c, s, _ := threeMembers(t, nil, func(cfg *agent.Config) {
		if cfg.Name == "w2" {
			cfg.Registry = reg
		}
	})
	id := c.on("w2")[0]
	p := s.member(id)
	for _, to := range others(id) {
		s.member(to).linked(id)
	}
	time.Sleep(500 * time.Millisecond) // its first sign of life has come
	syscall.Kill(p.pid, syscall.SIGSTOP)
	stopped := time.Now()
	end, whole := c.ended(id32(id))
	if took := time.Since(stopped); took > 3*time.Second {
		t.Logf("it took %s; a loaded machine is slow", took)
	}
	if want := c.name(id) + " gave no sign of life for 2 s"; whole || end.Exit != trial.ExitKilled || end.Message != want {
		t.Errorf("%+v, of the run: %v; want %q", end, whole, want)
	}
	for _, to := range others(id) {
		s.member(to).linkEnded(id)
	}
	if value(t, reg, "atelier_worker_members_hung_total") != 1 {
		t.Error("it is not counted")
	}
}

// TestAgentThatEnds: the members of the others see their links end.
func TestAgentThatEnds(t *testing.T) {
	c, s, workers := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	w1 := c.on("w1")[0]
	workers["w1"].cancel()
	for _, id := range others(w1) {
		s.member(id).linkEnded(w1)
	}
	if end, whole := c.ended(id32(w1)); whole || end.Exit != trial.ExitReleased {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestMemberIsAskedToLeave by the coordinators; its end is its own.
func TestMemberIsAskedToLeave(t *testing.T) {
	c, s, _ := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	c.with(func() { c.leave = []int32{2} })
	s.member(2).told(trainerproto.Control{Verdict: "leave"})
	if s.member(1).wasTold("leave") || s.member(3).wasTold("leave") {
		t.Error("others were asked too")
	}
	s.member(2).done(trainerproto.DoneLeft)
	if end, whole := c.ended(2); whole || end.Exit != trial.ExitReleased || end.Message != "left the group as it was asked to" {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestMemberThatDoesNotLeave is ended, and the end says so.
func TestMemberThatDoesNotLeave(t *testing.T) {
	c, s, _ := threeMembers(t, nil)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	c.with(func() { c.leave = []int32{2} })
	s.member(2).told(trainerproto.Control{Verdict: "leave"})
	want := "was asked to leave the group, did not within 500ms and was ended"
	if end, whole := c.ended(2); whole || end.Exit != trial.ExitReleased || end.Message != want {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestVerdictGoesToAllMembersHere, who end as each reports.
func TestVerdictGoesToAllMembersHere(t *testing.T) {
	c, s, _ := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(1).view(1, 1, 2, 3)
	c.with(func() { c.verdict = trial.VerdictStop })
	for id := 1; id <= 3; id++ {
		s.member(id).told(trainerproto.Control{Verdict: "stop"})
	}
	for _, id := range others(1) {
		s.member(id).done(trainerproto.DoneLeft)
		if end, whole := c.ended(id32(id)); whole || end.Exit != trial.ExitReleased {
			t.Errorf("%+v, of the run: %v", end, whole)
		}
	}
	s.member(1).done(trainerproto.DoneStopped)
	if end, whole := c.ended(1); !whole || end.Exit != trial.ExitStopped {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
}

// TestDrain: the members of a worker that leaves leave their group. Where all are on
// it they pause instead.
func TestDrainOfMembers(t *testing.T) {
	c, s, workers := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	two, one := c.on("w2"), c.on("w1")[0]
	s.member(1).view(1, 1, 2, 3)
	c.until("the view came", func() bool { return len(c.events) > 0 })
	workers["w2"].Drain()
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "leave"})
		s.member(id).done(trainerproto.DoneLeft)
		if end, whole := c.ended(id32(id)); whole || end.Exit != trial.ExitReleased || end.Message != "its worker is leaving" {
			t.Errorf("%+v, of the run: %v", end, whole)
		}
	}
	if err := workers["w2"].wait(t, 5*time.Second); err != nil {
		t.Error(err)
	}
	s.member(one).view(2, one)
	c.until("the view came", func() bool {
		return c.events[len(c.events)-1].View != nil && len(c.events[len(c.events)-1].View.Members) == 1
	})
	workers["w1"].Drain()
	s.member(one).told(trainerproto.Control{Verdict: "pause"})
	s.member(one).done(trainerproto.DonePaused)
	if end, _ := c.ended(id32(one)); end.Exit != trial.ExitReleased {
		t.Errorf("%+v", end)
	}
}

// TestLastMembersPauseThoughAskedToLeave: no other one is left to continue.
func TestLastMembersPauseThoughAskedToLeave(t *testing.T) {
	c, s, workers := threeMembers(t, nil, patient)
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	two := c.on("w2")
	workers["w2"].Drain()
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "leave"})
	}
	s.member(two[0]).view(2, two...)
	for _, id := range two {
		s.member(id).told(trainerproto.Control{Verdict: "pause"})
		s.member(id).done(trainerproto.DonePaused)
	}
}

// TestFencedHalfIsKilled: the coordinators know another view of that number.
func TestFencedHalfIsKilled(t *testing.T) {
	c, s, _ := threeMembers(t, func(c *groupCluster) {
		c.fence = func(e trial.Event) bool { return e.View != nil && e.View.Number == 2 }
	})
	for id := 1; id <= 3; id++ {
		s.member(id)
	}
	s.member(3).view(2, 3)
	if end, whole := c.ended(3); whole || end.Exit != trial.ExitLost {
		t.Errorf("%+v, of the run: %v", end, whole)
	}
	for _, id := range others(3) {
		s.member(id).linkEnded(3)
	}
}
