package group_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"atelier/worker/trainer/group"
)

// floor is where devices of tests reach each other: what a library as NCCL does,
// in this process. Messages between two ranks come in the order in which they were
// sent, and a rank that ended takes what is under way to it and from it along.
type floor struct {
	mu       sync.Mutex
	meetings map[string]*meeting
	made     int
	buckets  atomic.Int64 // exchanged
	fault    func(rank, members, bucket int) error
}

var errHang = errors.New("hang")

type meeting struct {
	pipes map[[2]int]chan []float32 // from, to
	ended []chan struct{}           // by rank
}

func newFloor() *floor {
	return &floor{meetings: map[string]*meeting{}, fault: func(int, int, int) error { return nil }}
}

func (f *floor) mover(id int) *mover { return &mover{f, "a library 1", fmt.Sprint("device ", id)} }

type mover struct {
	*floor
	kind, device string
}

func (m *mover) Kind() string   { return m.kind }
func (m *mover) Device() string { return m.device }

func (m *mover) Meeting() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made++
	return fmt.Append(nil, m.made), nil
}

func (m *mover) Meet(id []byte, rank, members int) (group.Carrier, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.meetings[string(id)]
	if at == nil {
		at = &meeting{pipes: map[[2]int]chan []float32{}}
		for from := range members {
			at.ended = append(at.ended, make(chan struct{}))
			for to := range members {
				at.pipes[[2]int{from, to}] = make(chan []float32, 1000)
			}
		}
		m.meetings[string(id)] = at
	}
	if len(at.ended) != members {
		return nil, fmt.Errorf("%d members meet as %d", len(at.ended), members)
	}
	return &carrier{floor: m.floor, at: at, rank: rank, end: sync.OnceFunc(func() { close(at.ended[rank]) })}, nil
}

type carrier struct {
	*floor
	at   *meeting
	rank int
	end  func()
}

func (c *carrier) Close() { c.end() }

func (c *carrier) send(to int, floats []float32) {
	c.at.pipes[[2]int{c.rank, to}] <- slices.Clone(floats)
}

func (c *carrier) receive(from int, floats []float32, stop <-chan struct{}) error {
	take := func(got []float32) error {
		if len(got) != len(floats) {
			return fmt.Errorf("rank %d sent %d floats, rank %d takes %d", from, len(got), c.rank, len(floats))
		}
		copy(floats, got)
		return nil
	}
	pipe := c.at.pipes[[2]int{from, c.rank}]
	select {
	case got := <-pipe:
		return take(got)
	case <-stop:
		return errors.New("stopped")
	case <-c.at.ended[from]:
		select {
		case got := <-pipe:
			return take(got)
		default:
			return fmt.Errorf("rank %d has ended", from)
		}
	}
}

func (c *carrier) Exchange(m group.Memory, p group.Plan, stop <-chan struct{}, came func(bucket int)) (err error) {
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	ready := map[int]bool{}
	own := p.First[p.Rank+1] - p.First[p.Rank]
	for b, size := range m.Sizes() {
		for own > 0 && !ready[b] {
			next, ok := m.Ready(stop)
			if !ok {
				return errors.New("stopped")
			}
			ready[next] = true
		}
		if err := c.fault(c.rank, len(p.First)-1, b); errors.Is(err, errHang) {
			<-stop
			return errors.New("stopped")
		} else if err != nil {
			return err
		}
		cuts := p.Cuts(size)
		for rank := range len(p.First) - 1 {
			for k := range own {
				if all, _ := m.Contribution(b, k); rank != p.Rank {
					c.send(rank, all[cuts[rank]:cuts[rank+1]])
				}
			}
		}
		lo, hi := cuts[p.Rank], cuts[p.Rank+1]
		var in [][]float32
		for rank := range len(p.First) - 1 {
			for k := range p.First[rank+1] - p.First[rank] {
				if rank == p.Rank {
					all, _ := m.Contribution(b, k)
					in = append(in, all[lo:hi])
					continue
				}
				in = append(in, make([]float32, hi-lo))
				if err := c.receive(rank, in[len(in)-1], stop); err != nil {
					return err
				}
			}
		}
		result := m.Result(b)
		m.Sum(result[lo:hi], in, p.Merges)
		for rank := range len(p.First) - 1 {
			if rank != p.Rank {
				c.send(rank, result[lo:hi])
			}
		}
		for rank := range len(p.First) - 1 {
			if rank != p.Rank {
				if err := c.receive(rank, result[cuts[rank]:cuts[rank+1]], stop); err != nil {
					return err
				}
			}
		}
		c.buckets.Add(1)
		came(b)
	}
	return nil
}

// runAndPart ends with a round of tails alone, as a trainer's run does: a member
// that ends before all has come to another has it do the last step again.
func (m *member) runAndPart(shards int, steps int64) error {
	g, err := group.Start(context.Background(), m.cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	m.group = g
	defer g.Close()
	for {
		if err := m.train(shards, steps); err != nil {
			return err
		}
		g.View()
		_, err := g.Begin(steps+1, 0, nil).Commit(nil)
		var changed *group.Changed
		if !errors.As(err, &changed) {
			return err
		}
	}
}

// together runs members, all linked, to the end; set changes them before.
func together(t *testing.T, n, shards int, steps int64, set func(*member)) (members []*member, errs []error) {
	t.Helper()
	for _, id := range ids(n) {
		m := newMember(id, ids(n), shards, false)
		set(m)
		members = append(members, m)
	}
	for i, a := range members {
		for _, b := range members[i+1:] {
			connect(t, 7, a.id, b.id, a.links, b.links, true)
		}
	}
	errs = make([]error, n)
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = m.runAndPart(shards, steps) })
	}
	wg.Wait()
	return members, errs
}

func reasons(m *member) string {
	var all []string
	for _, v := range m.views {
		all = append(all, v.Reason)
	}
	return strings.Join(slices.Compact(all), "; ")
}

// Moved between devices, sums have the bits that one member comes to.
func TestMovedSumsHaveTheSameBits(t *testing.T) {
	for _, shards := range []int{2, 5, 8} {
		want := oneMember(shards, 12)
		for n := 2; n <= shards; n++ {
			f := newFloor()
			members, errs := together(t, n, shards, 12, func(m *member) { m.cfg.Mover = f.mover(m.id) })
			for i, m := range members {
				if errs[i] != nil || m.model.hash() != want {
					t.Fatalf("%d shards, %d members: member %d: %v, or another state than one member's", shards, n, m.id, errs[i])
				}
			}
			if got := int(f.buckets.Load()); got != n*12*len(bucketSizes) || f.made != 1 {
				t.Errorf("%d shards, %d members: %d buckets were moved in %d meetings", shards, n, got, f.made)
			}
		}
	}
}

// Where not all members can take part, all sums go through the host's memory.
func TestWhoCannotMoveSums(t *testing.T) {
	const shards, steps = 4, 6
	want := oneMember(shards, steps)
	other := func(m *member, change func(mv *mover)) {
		mv := m.cfg.Mover.(*mover)
		change(mv)
	}
	for what, change := range map[string]func(m *member){
		"no mover":         func(m *member) { m.cfg.Mover = nil },
		"another library":  func(m *member) { other(m, func(mv *mover) { mv.kind = "a library 2" }) },
		"the same device":  func(m *member) { other(m, func(mv *mover) { mv.device = "device 3" }) },
		"an id too long":   func(m *member) { m.cfg.Mover = long{m.cfg.Mover.(*mover)} },
		"no meeting at it": func(m *member) { m.cfg.Mover = shy{m.cfg.Mover.(*mover)} },
	} {
		for _, odd := range []int{1, 2} {
			t.Run(fmt.Sprint(what, " ", odd), func(t *testing.T) {
				t.Parallel()
				f := newFloor()
				members, errs := together(t, 3, shards, steps, func(m *member) {
					m.cfg.Mover = f.mover(m.id)
					if m.id == odd {
						change(m)
					}
				})
				for i, m := range members {
					if errs[i] != nil || m.model.hash() != want {
						t.Fatalf("member %d: %v, or another state than one member's", m.id, errs[i])
					}
				}
				// Only rank 0 makes ids.
				if moved := f.buckets.Load() > 0; moved != (what == "an id too long" && odd == 2) {
					t.Errorf("%d buckets were moved", f.buckets.Load())
				}
			})
		}
	}
}

// long has ids that no frame takes, shy no part in meetings.
type (
	long struct{ *mover }
	shy  struct{ *mover }
)

func (long) Meeting() ([]byte, error)                    { return make([]byte, 257), nil }
func (shy) Meet([]byte, int, int) (group.Carrier, error) { return nil, errors.New("no driver") }

// A member whose device hangs or fails, while all members live, has the step done
// again through the host's memory, and all that follow.
func TestMovingThatIsGivenUp(t *testing.T) {
	const shards, steps = 6, 10
	want := oneMember(shards, steps)
	for _, fault := range []error{errHang, errors.New("unhandled system error")} {
		for bad := range 3 {
			f := newFloor()
			var calls atomic.Int64
			f.fault = func(rank, members, bucket int) error {
				if rank == bad && calls.Add(1) > 8 { // in the second step
					return fault
				}
				return nil
			}
			members, errs := together(t, 3, shards, steps, func(m *member) {
				m.cfg.Mover, m.cfg.Silence, m.cfg.Stuck = f.mover(m.id), time.Second, 300*time.Millisecond
			})
			for i, m := range members {
				if errs[i] != nil || m.model.hash() != want {
					t.Fatalf("%v at rank %d: member %d: %v, or another state than one member's", fault, bad, m.id, errs[i])
				}
				if got := reasons(m); got != "start; sums go through the host's memory from here on" {
					t.Errorf("%v at rank %d: views of member %d: %s", fault, bad, m.id, got)
				}
				if m.redone == 0 {
					t.Errorf("%v at rank %d: member %d did no step again", fault, bad, m.id)
				}
			}
			if f.made != 1 || f.buckets.Load() == 0 {
				t.Errorf("%v at rank %d: %d meetings, %d buckets", fault, bad, f.made, f.buckets.Load())
			}
		}
	}
}

// After a death those that are left meet anew, and go on moving sums.
func TestADeathWhileSumsAreMoved(t *testing.T) {
	const shards, steps = 6, 12
	want := oneMember(shards, steps)
	for dies := range 3 {
		f := newFloor()
		var members []*member
		var once sync.Once
		var calls atomic.Int64
		f.fault = func(rank, n, bucket int) error {
			if n == 3 && rank == dies && calls.Add(1) > 13 { // in the third step
				once.Do(func() { members[dies].group.Kill() })
			}
			return nil
		}
		for _, id := range ids(3) {
			m := newMember(id, ids(3), shards, false)
			m.cfg.Mover = f.mover(id)
			members = append(members, m)
		}
		for i, a := range members {
			for _, b := range members[i+1:] {
				connect(t, 7, a.id, b.id, a.links, b.links, true)
			}
		}
		errs := make([]error, 3)
		var wg sync.WaitGroup
		for i, m := range members {
			wg.Go(func() { errs[i] = m.runAndPart(shards, steps) })
		}
		wg.Wait()
		for i, m := range members {
			if i == dies {
				continue
			}
			if errs[i] != nil || m.model.hash() != want {
				t.Fatalf("death of rank %d: member %d: %v, or another state than one member's", dies, m.id, errs[i])
			}
			if got := reasons(m); got != "start; "+name(dies+1)+" was lost" {
				t.Errorf("death of rank %d: views of member %d: %s", dies, m.id, got)
			}
		}
		if f.made != 2 {
			t.Errorf("death of rank %d: %d meetings", dies, f.made)
		}
	}
}
