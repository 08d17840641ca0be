package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/worker/trainer/group"
)

// all runs members that are linked to each other, but for the pairs left out.
func startAll(t *testing.T, members []*member, local bool, without ...[2]int) []error {
	t.Helper()
	for i, a := range members {
		for _, b := range members[i+1:] {
			if !slices.Contains(without, [2]int{a.id, b.id}) {
				connect(t, 7, a.id, b.id, a.links, b.links, local)
			}
		}
	}
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.run(8, 12) })
	}
	wg.Wait()
	return errs
}

func several(n int) (members []*member) {
	for _, id := range ids(n) {
		members = append(members, newMember(id, ids(n), 8, false))
	}
	return members
}

func TestOtherEnginesAreRefused(t *testing.T) {
	members := several(3)
	members[1].cfg.Engine = "libtorch 1.13, avx2"
	for i, err := range startAll(t, members, true) {
		var m *group.Mismatch
		if !errors.As(err, &m) {
			t.Fatalf("member %d: %v, want a Mismatch", i+1, err)
		}
		text := m.Error()
		want := `"libtorch 2.6" is not "libtorch 1.13": w`
		if i == 1 {
			want = `"libtorch 1.13" is not "libtorch 2.6": w2/cpu0 and w`
		}
		if !strings.HasPrefix(text, want) || !strings.Contains(text, "libtorch 1.13, avx2") || !strings.Contains(text, "w2/cpu0") {
			t.Errorf("member %d: %s", i+1, text)
		}
	}
}

// A newcomer with another engine ends, and the others do not notice.
func TestANewcomerWithAnotherEngine(t *testing.T) {
	members := several(2)
	for _, m := range members {
		m.pause = func() { time.Sleep(time.Millisecond) }
	}
	n := newMember(3, ids(3), 8, true)
	n.cfg.Engine = "libtorch 2.6, avx512"
	for _, m := range members {
		connect(t, 7, m.id, 3, m.links, n.links, true)
	}
	var wg sync.WaitGroup
	var refused error
	wg.Go(func() { refused = n.run(8, 12) })
	errs := startAll(t, members, true)
	wg.Wait()
	var m *group.Mismatch
	if !errors.As(refused, &m) || !strings.Contains(refused.Error(), `"avx512" is not "avx2"`) {
		t.Errorf("the newcomer: %v", refused)
	}
	for i, m := range members {
		if errs[i] != nil || m.model.hash() != oneMember(8, 12) || m.redone > 0 || len(m.views) != 1 {
			t.Errorf("member %d: %v, %d steps redone, views %v", m.id, errs[i], m.redone, m.views)
		}
	}
}

func TestMembersThatDoNotReachEachOther(t *testing.T) {
	members := several(4)
	for _, m := range members {
		m.cfg.Term = 500 * time.Millisecond
	}
	members[0].cfg.Term = 700 * time.Millisecond // it has links to all, and hears of the others'
	for i, err := range startAll(t, members, false, [2]int{2, 4}) {
		var u *group.Unreachable
		if !errors.As(err, &u) {
			t.Fatalf("member %d: %v, want Unreachable", i+1, err)
		}
		for _, want := range []string{"w2/cpu0 has no link to w4/cpu0", "w4/cpu0 has no link to w2/cpu0"} {
			if strings.Count(err.Error(), want) != 1 {
				t.Errorf("member %d: %s", i+1, err)
			}
		}
	}
}

// A member that dies before it has greeted anyone is left out of the first view:
// by those on its machine, whose links to it end, and by others that hear of it
// from them, whose own links may have ended for another reason.
func TestAMemberDiesBeforeItGreets(t *testing.T) {
	for _, far := range []bool{false, true} {
		all := several(4)
		members := all[:3]
		for i, m := range members {
			m.cfg.Term = 20 * time.Second
			_, theirs := connect(t, 7, m.id, 4, m.links, all[3].links, !far || i < 2)
			theirs.Close()
		}
		for i, err := range startAll(t, members, true) {
			m := members[i]
			if err != nil || m.model.hash() != oneMember(8, 12) {
				t.Fatalf("far %v: member %d: %v", far, m.id, err)
			}
			if first := m.views[0]; first.Number != 1 || !slices.Equal(first.Members, []int{1, 2, 3}) || first.Reason != "w4/cpu0 was lost" {
				t.Errorf("far %v: member %d: view %+v", far, m.id, first)
			}
		}
	}
}

// A link with another token, of an earlier attempt at the run, is refused; the one
// that comes then counts.
func TestALinkOfAnotherAttempt(t *testing.T) {
	members := several(2)
	connect(t, 6, 1, 2, members[0].links, members[1].links, true)
	for i, err := range startAll(t, members, true) {
		if err != nil {
			t.Errorf("member %d: %v", i+1, err)
		}
	}
}

// A newcomer is taken in at a boundary: it has the state, no step is done again,
// and all end with the same.
func TestANewcomerCostsNoStep(t *testing.T) {
	for _, local := range []bool{true, false} {
		members := several(2)
		for _, m := range members {
			m.pause = func() { time.Sleep(2 * time.Millisecond) }
		}
		n := newMember(3, ids(3), 8, true)
		var wg sync.WaitGroup
		var err error
		wg.Go(func() {
			time.Sleep(20 * time.Millisecond)
			for _, m := range members {
				connect(t, 7, m.id, 3, m.links, n.links, local)
			}
			err = n.run(8, 12)
		})
		errs := startAll(t, members, local)
		wg.Wait()
		if err != nil {
			t.Fatalf("the newcomer: %v", err)
		}
		for i, m := range append(members, n) {
			if m.model.hash() != oneMember(8, 12) || m.redone > 0 {
				t.Errorf("local %v: member %d has another state, or %d steps redone", local, m.id, m.redone)
			}
			if i < 2 && errs[i] != nil {
				t.Error(errs[i])
			}
			last := m.views[len(m.views)-1]
			if last.Number != 2 || last.Reason != "w3/cpu0 joined" || len(last.Members) != 3 || last.Pause <= 0 && i < 2 {
				t.Errorf("member %d: view %+v", m.id, last)
			}
		}
	}
}

// A member leaves at a boundary, and the others continue without it.
func TestLeaving(t *testing.T) {
	for leaver := 1; leaver <= 3; leaver++ {
		members := several(3)
		members[leaver-1].leave = func(step int64) bool { return step == 5 }
		for i, err := range startAll(t, members, true) {
			m := members[i]
			if m.id == leaver {
				if !errors.Is(err, group.ErrLeft) || m.model.step != 5 {
					t.Errorf("member %d leaves: %v after step %d", m.id, err, m.model.step)
				}
				continue
			}
			last := m.views[len(m.views)-1]
			if err != nil || m.model.hash() != oneMember(8, 12) || m.redone > 0 || last.Reason != name(leaver)+" left" || last.Step != 5 {
				t.Errorf("member %d: %v, %d steps redone, view %+v", m.id, err, m.redone, last)
			}
		}
	}
}

// A member that computes for ever is left out, by name, and ends when it comes
// back.
func TestAStalledMember(t *testing.T) {
	members := several(3)
	for _, m := range members {
		m.cfg.Stall = 150 * time.Millisecond
	}
	steps := 0
	members[1].pause = func() {
		if steps++; steps == 10 {
			time.Sleep(time.Second)
		}
	}
	for i, err := range startAll(t, members, true) {
		m := members[i]
		if m.id == 2 {
			var cut *group.CutOff
			if !errors.As(err, &cut) {
				t.Errorf("the stalled member: %v", err)
			}
			continue
		}
		last := m.views[len(m.views)-1]
		if err != nil || m.model.hash() != oneMember(8, 12) || last.Reason != "w2/cpu0 computed for more than 150ms" {
			t.Errorf("member %d: %v, view %+v", m.id, err, last)
		}
	}
}

// Pace names the member that computes longest.
func TestPace(t *testing.T) {
	members := several(2)
	members[0].pause = func() { time.Sleep(time.Millisecond) }
	members[1].pause = func() { time.Sleep(4 * time.Millisecond) }
	for i, err := range startAll(t, members, true) {
		p := members[i].group.Pace()
		if err != nil || p == nil || p.Slowest != 2 || p.Lag < 0.2 || p.Waiting < 0.1 || p.Waiting > 0.6 || p.Step < 0.01 {
			t.Errorf("member %d: %v, pace %+v", i+1, err, p)
		}
	}
}

// A training that stops at a step's start, as by an error, leaves the others to it.
func TestStartIsCancelled(t *testing.T) {
	m := newMember(1, ids(2), 8, false)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := group.Start(ctx, m.cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestBadJobs(t *testing.T) {
	for want, m := range map[string]*member{
		"9 members for 8 shards": newMember(1, ids(9), 8, false),
		"is not one of":          newMember(4, ids(3), 8, false),
		"twice":                  newMember(1, []int{1, 2, 2}, 8, false),
	} {
		if _, err := group.Start(context.Background(), m.cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Steps are numbered without a gap.
func TestStepsHaveNoGaps(t *testing.T) {
	m := newMember(1, ids(1), 8, false)
	g, err := group.Start(context.Background(), m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if tails, err := g.Begin(1, 8, nil).Commit([]byte("x")); err != nil || string(tails[1]) != "x" {
		t.Errorf("%v, %v", tails, err)
	}
	if _, err := g.Begin(3, 8, nil).Commit(nil); err == nil || !strings.Contains(fmt.Sprint(err), "step 3 begins after step 1") {
		t.Errorf("%v", err)
	}
}

// Newcomers that are linked to each other, and to nobody that has the state, do not
// wait for one another: where it ended, and where they never had a link to it.
func TestNewcomersAmongThemselvesEnd(t *testing.T) {
	for _, linked := range []bool{true, false} {
		var members []*member
		for id := 2; id <= 3; id++ {
			m := newMember(id, ids(3), 8, true)
			m.cfg.Term = 500 * time.Millisecond
			if linked {
				_, theirs := connect(t, 7, id, 1, m.links, newMember(1, ids(3), 8, false).links, true)
				theirs.Close()
			}
			members = append(members, m)
		}
		said := ""
		for i, err := range startAll(t, members, true) {
			var cut *group.CutOff
			if !errors.As(err, &cut) {
				t.Fatalf("linked %v: member %d: %v", linked, i+2, err)
			}
			said += cut.Reason + "\n" // the second one may see but the first one's end
		}
		if !strings.Contains(said, "for 500ms only newcomers are left") {
			t.Errorf("linked %v: %s", linked, said)
		}
	}
}
