package group_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/worker/trainer/group"
)

// gated is a connection to another machine, which a silence stops: nothing is read
// or written while the gate is shut.
type gated struct {
	net.Conn
	gate *gate
}

type gate struct {
	mu     sync.Mutex
	opened *sync.Cond
	shut   bool
}

func newGate() *gate {
	g := &gate{}
	g.opened = sync.NewCond(&g.mu)
	return g
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.shut {
		g.opened.Wait()
	}
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.opened.Broadcast()
}

func (c *gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.gate.pass()
	return n, err
}

func (c *gated) Write(b []byte) (int, error) {
	c.gate.pass()
	return c.Conn.Write(b)
}

// stress is one training with faults.
type stress struct {
	t       *testing.T
	rng     *rand.Rand
	shards  int
	steps   int64
	next    int // id of the next member
	mu      sync.Mutex
	members map[int]*player
	wg      sync.WaitGroup
	log     []string
	began   time.Time
	pace    time.Duration // of a shard, at most
	apart   bool          // all on machines of their own
	floor   *floor        // where sums are moved between devices; nil: they are not
}

type player struct {
	*member
	machine int
	gate    *gate
	conns   []net.Conn
	killed  bool
	leaving bool
	stopped bool // was silent at some time
	err     error
	over    bool
	in      bool // Start returned
}

func (s *stress) note(format string, a ...any) {
	s.log = append(s.log, fmt.Sprintf("%v ", time.Since(s.began).Round(10*time.Microsecond))+fmt.Sprintf(format, a...))
}

func (s *stress) live() (list []*player) {
	for _, p := range s.members {
		if !p.killed && !p.over {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *player) int { return a.id - b.id })
	return list
}

// add makes a member, linked to all that live.
func (s *stress) add(join bool, among []int) *player {
	p := &player{member: newMember(s.next, among, s.shards, join), machine: s.rng.IntN(2), gate: newGate()}
	if s.apart {
		p.machine = s.next
	}
	if s.floor != nil {
		p.cfg.Mover = s.floor.mover(s.next)
	}
	s.next++
	p.cfg.Silence = 400 * time.Millisecond
	if raceOn {
		p.cfg.Silence = 1200 * time.Millisecond
	}
	seed := rand.New(rand.NewPCG(s.rng.Uint64(), 1))
	p.pause = func() { time.Sleep(time.Duration(seed.Int64N(int64(s.pace) + 1))) }
	for _, other := range s.live() {
		s.connect(p, other)
	}
	s.members[p.id] = p
	return p
}

func (s *stress) connect(a, b *player) {
	fa, fb, err := links.Pair()
	if err != nil {
		s.t.Fatal(err)
	}
	ca, cb := conn(s.t, fa), conn(s.t, fb)
	local := a.machine == b.machine
	if !local {
		ca, cb = &gated{ca, a.gate}, &gated{cb, b.gate}
	}
	a.conns, b.conns = append(a.conns, ca), append(b.conns, cb)
	a.links <- links.Link{Header: links.Header{Token: 7, Member: b.id, Name: name(b.id), Local: local}, Conn: ca}
	b.links <- links.Link{Header: links.Header{Token: 7, Member: a.id, Name: name(a.id), Local: local}, Conn: cb}
}

func (s *stress) start(p *player) {
	g, err := group.New(p.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	p.group = g
	s.wg.Go(func() {
		err := g.Start(context.Background())
		s.mu.Lock()
		p.in = err == nil
		s.mu.Unlock()
		if err == nil {
			err = p.train(s.shards, s.steps)
			g.Close()
		}
		s.mu.Lock()
		p.over, p.err = true, err
		s.note("member %d ends: %v", p.id, err)
		s.mu.Unlock()
	})
}

func (s *stress) kill(p *player) {
	s.note("member %d is killed", p.id)
	p.killed = true
	p.group.Kill()
	for _, c := range p.conns {
		c.Close()
	}
	p.gate.set(false)
}

// event does something to a member, as a cluster would.
func (s *stress) event(silences bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := s.live()
	if len(live) == 0 {
		return
	}
	p := live[s.rng.IntN(len(live))]
	sound := 0
	for _, q := range live { // with further losses the rest may be half of the members, and end
		if q.stopped {
			return
		}
	}
	for _, q := range live {
		if !q.leaving && !q.stopped && q.in { // a newcomer without the state is nobody's hope
			sound++
		}
	}
	spare := sound > 1 || p.leaving || !p.in && sound > 0
	kind := s.rng.IntN(8)
	if kind == 7 && (len(live) == s.shards || sound == 0) {
		kind = 0
	}
	switch {
	case kind == 7 || kind == 6 && len(live) < s.shards && sound > 0:
		var among []int
		for _, q := range live {
			among = append(among, q.id)
		}
		n := s.add(true, append(among, s.next))
		s.note("member %d joins %v, machine %d", n.id, among, n.machine)
		s.start(n)
	case kind == 5 && spare && !p.leaving && p.in:
		s.note("member %d is to leave", p.id)
		p.leaving = true
		p.group.Leave()
	case kind == 4 && silences && s.apart && sound > 2 && 2*sound > len(live) && !p.leaving:
		s.note("member %d is silent", p.id)
		p.stopped = true
		p.gate.set(true)
		time.AfterFunc(time.Duration(s.rng.Int64N(int64(3*p.cfg.Silence))), func() { p.gate.set(false) })
	case spare:
		s.kill(p)
	}
}

// run is one training with faults; it reports what was done.
func (s *stress) run(founders, events int, silences bool) {
	s.next, s.members, s.began = 1, map[int]*player{}, time.Now()
	all := ids(founders)
	s.mu.Lock()
	for range founders {
		s.add(false, all)
	}
	for _, id := range all {
		s.note("member %d, machine %d", id, s.members[id].machine)
		s.start(s.members[id])
	}
	s.mu.Unlock()
	length := time.Duration(s.steps) * s.pace * time.Duration(s.shards) / time.Duration(2*founders)
	for range events {
		time.Sleep(time.Duration(s.rng.Int64N(int64(length)/int64(events) + 1)))
		s.event(silences)
	}
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		s.fail("the run does not end")
	}
}

func (s *stress) fail(format string, a ...any) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.log {
		s.t.Log(line)
	}
	for id, p := range s.members {
		if !p.over {
			s.t.Logf("member %d is at step %d", id, p.model.step) // a race: the run failed
		}
	}
	s.t.Fatalf(format, a...)
}

// check: who ended well has the one-member hash; all others were killed, left, or
// were silent; and somebody ended well.
func (s *stress) check(want string) (redone int) {
	s.t.Helper()
	finished := 0
	for id, p := range s.members {
		var cut *group.CutOff
		switch {
		case p.killed || errors.Is(p.err, group.ErrLeft):
		case p.err == nil:
			finished++
			if h := p.model.hash(); h != want {
				s.fail("member %d ends with another state than one member", id)
			}
		case errors.As(p.err, &cut) && (p.stopped || p.cfg.Job.Join && !p.in): // the run ended before it was taken in
		default:
			s.fail("member %d: %v", id, p.err)
		}
	}
	if finished == 0 {
		s.fail("no member reached the end")
	}
	return 0
}

func stressRuns(t *testing.T, fewer int) int {
	if n, err := strconv.Atoi(os.Getenv("GROUP_STRESS")); err == nil {
		return n
	}
	if testing.Short() {
		return fewer / 5
	}
	return fewer
}

// Members are killed, leave and join at random moments: every run ends, and every
// member that reached its end has the state of a run of one member.
func TestKillsJoinsAndLeaves(t *testing.T) {
	faults(t, stressRuns(t, 120), false, false)
}

// The same where sums are moved between devices: each view has a meeting of its own.
func TestKillsJoinsAndLeavesMoved(t *testing.T) {
	faults(t, stressRuns(t, 60), false, true)
}

// The same with members on machines of their own that are silent for a while: they
// are left out, or the others wait for them.
func TestSilences(t *testing.T) {
	faults(t, stressRuns(t, 20), true, false)
}

func faults(t *testing.T, runs int, silences, moved bool) {
	want := map[int]string{}
	const steps = 25
	for _, shards := range []int{5, 6, 7, 8} {
		want[shards] = oneMember(shards, steps)
	}
	var buckets atomic.Int64 // that were moved
	parallel := make(chan struct{}, 4)
	var wg sync.WaitGroup
	for seed := range runs {
		parallel <- struct{}{}
		wg.Go(func() {
			defer func() { <-parallel }()
			t.Run(fmt.Sprint(seed), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(seed), 11))
				shards := 5 + rng.IntN(4)
				s := &stress{t: t, rng: rng, shards: shards, steps: steps, pace: 300 * time.Microsecond, apart: silences}
				if moved {
					s.floor = newFloor()
				}
				founders := 1 + rng.IntN(shards)
				if silences {
					founders = max(founders, 3)
				}
				s.run(founders, 1+rng.IntN(8), silences)
				s.check(want[shards])
				if moved {
					buckets.Add(s.floor.buckets.Load())
				}
			})
		})
	}
	wg.Wait()
	if moved && buckets.Load() == 0 {
		t.Error("nothing was moved between devices")
	}
}
