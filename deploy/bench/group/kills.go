package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

// Bars of a disturbed run, milliseconds.
const (
	barLostP50 = 100.0  // from SIGKILL to a new view, in which the step is done again
	barLostP99 = 1000.0 //
	barStopped = 3000.0 // the same of a stopped member
	barJoin    = 2000.0 // from the grant of a slot to the view with the member, of a warm trainer
)

// The training that is disturbed: short steps.
const (
	killModel   = "vanilla"
	killSize    = 32
	killBatch   = 32
	killShards  = 4
	killWorkers = 3
	killPerRun  = 20 // faults in a training, at most
)

// killRun is one training that was disturbed.
type killRun struct {
	outcome
	Faults []strike  `json:"faults"`
	Joins  []join    `json:"joins"`
	Logs   bool      `json:"logs"` // were read for Joins: of a run measured before that nothing is known
	Views  int       `json:"views"`
	Runs   int       `json:"runs"` // attempts of the trial: 1 unless all members were lost at once
	Step   float64   `json:"step_s"`
	Want   string    `json:"want"` // hash of one process
	Wrong  []string  `json:"wrong,omitempty"`
	Pauses []float64 `json:"pauses_ms"` // of views without a member of the one before, as the run recorded them
}

// strike is one fault and what followed.
type strike struct {
	Kind     string  `json:"kind"`
	Reporter bool    `json:"reporter"`   // the member was of rank 0
	Settled  float64 `json:"settled_ms"` // from the fault to the view without the member; 0 = the run ended before
	Pause    float64 `json:"pause_ms"`   // between the commits around it, as the run recorded it; 0 = not known

	Restarted bool `json:"restarted,omitempty"` // all members were gone: the trial went on in a further run
}

// join is a member that came while others worked.
type join struct {
	Took  float64 `json:"took_ms"`  // from the grant to its view
	Pause float64 `json:"pause_ms"` // of the others: between the commits around it
	Warm  bool    `json:"warm"`     // its trainer stood by when the slot was granted

	Lost   bool `json:"lost,omitempty"`   // the view is without one of those before: it was lost at the same moment
	Redone int  `json:"redone,omitempty"` // members whose step in hand had to be done again in that view, by their logs
}

// measureKills disturbs trainings on a cluster until there were faults enough.
func (b *bench) measureKills(ctx context.Context) error {
	perRun := b.count(killPerRun, 4)
	data, err := b.draw(ctx, 128, 16, killSize)
	if err != nil {
		return err
	}
	w := work{data: data, model: killModel, epochs: b.count(100, 16), batch: killBatch,
		set: []string{fmt.Sprintf("image_size=%d", killSize), fmt.Sprintf("shards=%d", killShards), "ema_decay=0.9", "augmentation.flip=true"}}
	one, err := harness.Measure(b.Session, fmt.Sprintf("kills one process, %d epochs", w.epochs), func() (outcome, error) {
		dir, err := b.scratch("one")
		if err != nil {
			return outcome{}, err
		}
		return b.train(ctx, b.Bin, dir, w, "1", nil)
	})
	if err != nil {
		return err
	}
	var here, there []string // kinds on the loopback, and on hosts of their own
	for _, k := range b.kinds {
		i := slices.IndexFunc(allFaults, func(f fault) bool { return f.name == k })
		if allFaults[i].network {
			there = append(there, k, "member", "reporter")
		} else {
			here = append(here, k)
		}
	}
	done := 0
	for _, set := range []struct {
		name  string
		kinds []string
		goal  int
	}{{"loopback", here, b.count(b.faults, 8)}, {"hosts", there, b.count(max(b.faults/10, 6), 3)}} {
		if len(set.kinds) == 0 {
			continue
		}
		n, err := b.disturb(ctx, set.name, set.kinds, set.goal, perRun, w, one.Hash)
		if done += n; b.skipped(err) {
			continue
		}
		if err != nil {
			return err
		}
	}
	b.Say("%d faults in all", done)
	return nil
}

// disturb takes trainings on one cluster until there were goal faults.
func (b *bench) disturb(ctx context.Context, name string, kinds []string, goal, perRun int, w work, want string) (done int, err error) {
	var m *machines
	defer func() {
		if m != nil {
			m.close()
		}
	}()
	for round := 1; done < goal && ctx.Err() == nil; round++ {
		run, err := harness.Measure(b.Session, fmt.Sprintf("kills %s run=%d seed=%d epochs=%d kinds=%s", name, round, b.seed, w.epochs, strings.Join(kinds, ",")), func() (killRun, error) {
			if m == nil {
				var net *network
				if name == "hosts" {
					if net, err = newNetwork(0, []string{"c1"}, []string{"w1"}, []string{"w2"}, []string{"w3"}); err != nil {
						return killRun{}, err
					}
				}
				coordinators := 3
				if net != nil {
					coordinators = 1
				}
				if m, err = b.startMachines(ctx, "kills", coordinators, killWorkers, 1, "torch", net); err != nil {
					if net != nil {
						net.close()
					}
					return killRun{}, err
				}
			}
			return b.disturbed(ctx, m, w, want, kinds, min(perRun, goal-done), rand.New(rand.NewPCG(b.seed, uint64(round))))
		})
		if err != nil {
			return done, err
		}
		for _, wrong := range run.Wrong {
			b.Say("WRONG: %s", wrong)
		}
		if done += len(run.Faults); len(run.Faults) == 0 {
			return done, errors.New("no fault reached the training: it ended too soon")
		}
	}
	return done, ctx.Err()
}

// disturbed is one training with faults at random times, each once the group is
// whole again or did not become so for some seconds.
func (b *bench) disturbed(ctx context.Context, m *machines, w work, want string, kinds []string, most int, random *rand.Rand) (run killRun, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	dir, err := b.scratch("kills")
	if err != nil {
		return run, err
	}
	t, err := b.start(ctx, b.Bin, dir, w, fmt.Sprintf("1-%d", killWorkers), m.addresses())
	if err != nil {
		return run, err
	}
	defer t.close()
	f, err := m.follow(ctx, t)
	if err != nil {
		return run, err
	}
	var repairs sync.WaitGroup
	var mu sync.Mutex
	var broken error
	a := &attack{machines: m, f: f, random: random, repairs: func(what string, repair func(context.Context) error) {
		repairs.Go(func() {
			if err := repair(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				broken = errors.Join(broken, fmt.Errorf("%s: %w", what, err))
			}
		})
	}}
	type struck struct {
		kind     string
		reporter int32 // id of rank 0 at the time
		hits     []hit
		run      int32
	}
	var all []struck
	next := slices.Clone(kinds)
	for count := 0; count < most; {
		if !waitWhole(t, f, 12*time.Second) {
			break // it ended
		}
		select {
		case <-t.ended:
		case <-time.After(time.Duration(200+random.IntN(1000)) * time.Millisecond):
		}
		if a.present = f.present(); len(a.present) < 2 {
			select {
			case <-t.ended:
				count = most
			case <-ctx.Done():
				return run, fmt.Errorf("the training did not end: %w", context.Cause(ctx))
			default:
			}
			continue
		}
		if len(next) == 0 {
			next = slices.Clone(kinds)
		}
		i := random.IntN(len(next)) // each kind once before any comes again
		kind := next[i]
		next = slices.Delete(next, i, i+1)
		at := slices.IndexFunc(allFaults, func(x fault) bool { return x.name == kind })
		attempt := int32(0)
		if _, r := f.now(); r != nil {
			attempt = r.Number
		}
		hits, err := allFaults[at].strike(ctx, a)
		if err != nil {
			return run, fmt.Errorf("fault %s: %w", kind, err)
		}
		if len(hits) > 0 {
			all = append(all, struck{kind, a.present[0].ID, hits, attempt})
			count += len(hits)
		}
		if kind == "leader" { // its repair is part of the fault: a second one at the same time would end the majority
			repairs.Wait()
		}
	}
	run.outcome, err = t.wait()
	repairs.Wait()
	if err != nil {
		return run, errors.Join(err, broken)
	}
	if broken != nil {
		return run, broken
	}
	f.look(ctx)
	views := f.seen()
	run.Want, run.Views = want, len(views)
	if tr, _ := f.now(); tr != nil {
		run.Runs = len(tr.Runs)
	}
	if run.Hash != want {
		run.Wrong = append(run.Wrong, fmt.Sprintf("sweep %s: best_model.pth is %.12s, that of one process %.12s", f.sweep, run.Hash, want))
	}
	if err := run.whole(w.epochs); err != nil {
		run.Wrong = append(run.Wrong, fmt.Sprintf("sweep %s: history: %v", f.sweep, err))
	}
	epochs, err := m.reported(ctx, f.sweep)
	if err != nil {
		return run, err
	}
	if err := (outcome{Epochs: epochs}).whole(w.epochs); err != nil {
		run.Wrong = append(run.Wrong, fmt.Sprintf("sweep %s: curve: %v", f.sweep, err))
	}
	run.Step = harness.Median(f.stepTimes())
	for _, s := range all {
		for _, h := range s.hits {
			run.Faults = append(run.Faults, settled(s.kind, h, s.reporter, s.run, views))
		}
	}
	run.Joins, run.Logs = f.joins(), true
	for i, v := range views {
		if i > 0 && v.Run == views[i-1].Run && v.PauseMS > 0 && lostOne(views[i-1], v) {
			run.Pauses = append(run.Pauses, float64(v.PauseMS))
		}
	}
	return run, nil
}

// lostOne reports whether a view is without a member of the one before.
func lostOne(before, v seenView) bool {
	return slices.ContainsFunc(before.Members, func(id int32) bool { return !slices.Contains(v.Members, id) })
}

// waitWhole waits until the group has all members that it may have, or for so
// long; false where the training has ended.
func waitWhole(t *training, f *follower, within time.Duration) bool {
	for end := time.Now().Add(within); time.Now().Before(end) && len(f.present()) < killWorkers; {
		select {
		case <-t.ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	select {
	case <-t.ended:
		return false
	default:
		return true
	}
}

// settled finds the first view of the run after a fault that is without the member.
// Where no member was left there is none, but a further run.
func settled(kind string, h hit, reporter, run int32, views []seenView) strike {
	s := strike{Kind: kind, Reporter: h.Member == reporter}
	if h.Member == 0 {
		return s
	}
	for _, v := range views {
		if v.Run > run {
			s.Restarted = true
			break
		}
		if v.TimeMS >= h.TimeMS-2 && !slices.Contains(v.Members, h.Member) {
			s.Settled, s.Pause = max(1, float64(v.TimeMS-h.TimeMS)), float64(v.PauseMS)
			break
		}
	}
	return s
}

// joins are the members that came later, with the time from grant to view, and with
// what it cost the others.
func (f *follower) joins() (all []join) {
	views := f.seen()
	again := map[int32]map[int32]int{} // by run and view
	for _, v := range views {
		if again[v.Run] == nil {
			again[v.Run] = f.m.stepsAgain(f.sweep, v.Run)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range f.granted {
		for i, v := range views {
			if v.Run == g.run && slices.Contains(v.Members, g.ID) {
				if i > 0 && views[i-1].Run == v.Run { // not of the first view
					all = append(all, join{Took: float64(v.TimeMS - g.GrantedMS), Pause: float64(v.PauseMS), Warm: g.warm,
						Lost: lostOne(views[i-1], v), Redone: again[v.Run][v.Number]})
				}
				break
			}
		}
	}
	slices.SortFunc(all, func(a, b join) int { return cmp.Compare(a.Took, b.Took) })
	return all
}

// stepTimes are those that workers showed.
func (f *follower) stepTimes() []float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.steps)
}

// grant is a member as it was first seen.
type grant struct {
	trial.GroupMember
	run  int32
	warm bool
}
