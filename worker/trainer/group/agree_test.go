package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wire is what is under way from one member to another: proposals, and at last
// perhaps that the link ended.
type wire struct {
	queue []proposal
	end   cause
	broke bool
}

// world runs the agreements of members over links whose messages arrive in any
// order between links, in order on each.
type world struct {
	rng     *rand.Rand
	now     time.Duration
	members map[int]*agreement
	wires   map[[2]int]*wire
	dead    map[int]bool
	cut     map[int]string
	views   map[int][]decision // of each member
	log     []string
}

const testPatience, testGrace = 100 * time.Millisecond, 2 * time.Second

func newWorld(rng *rand.Rand, n int) *world {
	w := &world{rng: rng, members: map[int]*agreement{}, wires: map[[2]int]*wire{}, dead: map[int]bool{}, cut: map[int]string{}, views: map[int][]decision{}}
	var ids []int
	for id := 1; id <= n; id++ {
		ids = append(ids, id)
	}
	for _, id := range ids {
		w.add(id)
		w.members[id].enter(1, ids)
		w.members[id].committed = 10
	}
	return w
}

func (w *world) add(id int) {
	w.members[id] = newAgreement(id, testPatience, testGrace)
	for other := range w.members {
		if other != id {
			w.wires[[2]int{id, other}], w.wires[[2]int{other, id}] = &wire{}, &wire{}
		}
	}
}

func (w *world) note(format string, a ...any) { w.log = append(w.log, fmt.Sprintf(format, a...)) }

func (w *world) runs(id int) bool { return !w.dead[id] && w.cut[id] == "" }

func (w *world) do(id int, out outcome) {
	for {
		if out.send != nil {
			w.note("%v member %d proposes %+v", w.now, id, *out.send)
			for _, to := range out.send.Members {
				if wire := w.wires[[2]int{id, to}]; wire != nil && !wire.broke {
					wire.queue = append(wire.queue, *out.send)
				}
			}
		}
		if out.cutOff != "" {
			w.note("%v member %d is cut off: %s", w.now, id, out.cutOff)
			w.cut[id] = out.cutOff
			w.hangUp(id, ended)
			return
		}
		if out.view == nil {
			return
		}
		w.note("%v member %d decides %+v", w.now, id, *out.view)
		w.views[id] = append(w.views[id], *out.view)
		out = w.members[id].tick(w.now)
	}
}

// hangUp ends all links of a member: what it sent before arrives, or a part.
func (w *world) hangUp(id int, why cause) {
	for pair, wire := range w.wires {
		if slices.Contains(pair[:], id) && !wire.broke {
			wire.broke, wire.end = true, why
			if pair[0] == id && len(wire.queue) > 0 && w.rng.IntN(3) == 0 {
				wire.queue = wire.queue[:w.rng.IntN(len(wire.queue)+1)]
			}
		}
	}
}

// deliver lets one thing happen; false: there is nothing.
func (w *world) deliver() bool {
	var ready [][2]int
	for a := 1; a <= len(w.members); a++ {
		for b := 1; b <= len(w.members); b++ {
			if wire := w.wires[[2]int{a, b}]; wire != nil && w.runs(b) && (len(wire.queue) > 0 || wire.end != "") {
				ready = append(ready, [2]int{a, b})
			}
		}
	}
	if len(ready) == 0 {
		return false
	}
	pair := ready[w.rng.IntN(len(ready))]
	wire, to := w.wires[pair], w.members[pair[1]]
	if len(wire.queue) > 0 {
		p := wire.queue[0]
		wire.queue = wire.queue[1:]
		w.do(pair[1], to.hear(w.now, pair[0], p))
		return true
	}
	why := wire.end
	wire.end = ""
	w.note("%v member %d loses %d: %s", w.now, pair[1], pair[0], why)
	w.do(pair[1], to.lose(w.now, pair[0], why))
	return true
}

// settle delivers all, and lets time pass, until nothing happens any more.
func (w *world) settle(t *testing.T) {
	for range 100000 {
		if w.rng.IntN(4) > 0 && w.deliver() {
			continue
		}
		var next time.Duration
		who := 0
		for id := 1; id <= len(w.members); id++ {
			if at, ok := w.members[id].deadline(); ok && w.runs(id) && (who == 0 || at < next) {
				next, who = at, id
			}
		}
		if who == 0 {
			if !w.deliver() {
				return
			}
			continue
		}
		if w.rng.IntN(10) > 0 && w.deliver() { // messages are mostly faster than timers
			continue
		}
		w.now = max(w.now, next)
		w.do(who, w.members[who].tick(w.now))
	}
	w.fatal(t, "this does not end")
}

func (w *world) fatal(t *testing.T, format string, a ...any) {
	t.Helper()
	for _, line := range w.log {
		t.Log(line)
	}
	t.Fatalf(format, a...)
}

// check: whoever decided for a number with others that decided for it too has the
// same set as they; and in the end all that run are in views whose members run,
// have that view in force, and are in no agreement.
func (w *world) check(t *testing.T) {
	t.Helper()
	for a, as := range w.views {
		for _, va := range as {
			for b, bs := range w.views {
				for _, vb := range bs {
					if va.number == vb.number && slices.Contains(va.members, b) && slices.Contains(vb.members, a) && !slices.Equal(va.members, vb.members) {
						w.fatal(t, "view %d is %v at member %d and %v at member %d", va.number, va.members, a, vb.members, b)
					}
				}
			}
		}
	}
	for id, m := range w.members {
		if !w.runs(id) {
			continue
		}
		if m.active {
			w.fatal(t, "member %d still agrees", id)
		}
		for _, other := range m.members {
			if o := w.members[other]; !w.runs(other) || o.base != m.base || !slices.Equal(o.members, m.members) {
				w.fatal(t, "member %d is in view %d of %v, of which member %d is not", id, m.base, m.members, other)
			}
		}
	}
}

func (w *world) running() (ids []int) {
	for id := 1; id <= len(w.members); id++ {
		if w.runs(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

func runs() int {
	if testing.Short() {
		return 500
	}
	return 4000
}

// Members die, at any moment, several of them, while others agree already: all
// that live are in one view in the end.
func TestAgreementAfterDeaths(t *testing.T) {
	for seed := range runs() {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		n := 1 + rng.IntN(7)
		w := newWorld(rng, n)
		for range rng.IntN(n) {
			id := 1 + rng.IntN(n)
			w.dead[id] = true
			w.note("member %d dies", id)
			w.hangUp(id, ended)
			for range rng.IntN(30) {
				w.deliver()
			}
		}
		w.settle(t)
		w.check(t)
		for id := 1; id <= n; id++ {
			if w.cut[id] != "" {
				w.fatal(t, "seed %d: member %d is cut off although others only died", seed, id)
			}
			if w.runs(id) && !slices.Equal(w.members[id].members, w.running()) {
				w.fatal(t, "seed %d: member %d is in view %v of those that live: %v", seed, id, w.members[id].members, w.running())
			}
		}
	}
}

// A network is cut: the parts hear nothing of each other. One part continues, if
// it has more than half, or half with the lowest rank; the others end.
func TestAgreementAfterPartitions(t *testing.T) {
	for seed := range runs() {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		n := 2 + rng.IntN(6)
		w := newWorld(rng, n)
		side := map[int]int{}
		var sides [3][]int
		for id := 1; id <= n; id++ {
			side[id] = rng.IntN(1 + rng.IntN(3))
			sides[side[id]] = append(sides[side[id]], id)
		}
		for pair, wire := range w.wires {
			if side[pair[0]] != side[pair[1]] {
				wire.broke, wire.end = true, silent
			}
		}
		w.settle(t)
		w.check(t)
		var want []int
		for _, s := range sides {
			if 2*len(s) > n || 2*len(s) == n && slices.Contains(s, 1) {
				want = s
			}
		}
		if !slices.Equal(w.running(), want) {
			w.fatal(t, "seed %d: of the parts %v these continue: %v", seed, sides, w.running())
		}
	}
}

// Links end between members that live, in any pairs, also seen by one of the two
// alone, and members die meanwhile: never two views of a number among members
// that are in each other's, and all that run agree in the end.
func TestAgreementAfterBrokenPairs(t *testing.T) {
	alone := 0
	for seed := range runs() {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		n := 2 + rng.IntN(6)
		w := newWorld(rng, n)
		for range 1 + rng.IntN(3) {
			a, b := 1+rng.IntN(n), 1+rng.IntN(n)
			if a == b {
				continue
			}
			why := []cause{ended, silent, stalled, hung}[rng.IntN(4)]
			for _, pair := range [][2]int{{a, b}, {b, a}} {
				if wire := w.wires[pair]; !wire.broke && (why == ended || rng.IntN(2) == 0) {
					wire.end = why
					wire.broke = why == ended || rng.IntN(2) == 0
				}
			}
			if rng.IntN(3) == 0 {
				id := 1 + rng.IntN(n)
				w.dead[id] = true
				w.note("member %d dies", id)
				w.hangUp(id, ended)
			}
			for range rng.IntN(30) {
				w.deliver()
			}
		}
		w.settle(t)
		w.check(t)
		if len(w.running()) == 0 && len(w.dead) < n {
			alone++
		}
	}
	if alone > runs()/10 {
		t.Errorf("in %d of %d runs nothing was left", alone, runs())
	}
}

// One broken pair among members that all live costs the member of the higher rank,
// and no other.
func TestOneBrokenPair(t *testing.T) {
	for seed := range runs() {
		rng := rand.New(rand.NewPCG(uint64(seed), 4))
		n := 3 + rng.IntN(5)
		w := newWorld(rng, n)
		a := 1 + rng.IntN(n-1)
		b := a + 1 + rng.IntN(n-a)
		for _, pair := range [][2]int{{a, b}, {b, a}} {
			w.wires[pair].end, w.wires[pair].broke = ended, true
		}
		for w.deliver() { // no timer is over before all is delivered
		}
		w.settle(t)
		w.check(t)
		for id := 1; id <= n; id++ {
			if w.runs(id) == (id == b) {
				w.fatal(t, "seed %d: the pair %d, %d broke, and member %d runs: %v", seed, a, b, id, w.runs(id))
			}
		}
	}
}

// Some have committed a step at whose boundary a newcomer joined, others not yet,
// when a member dies: the newcomer, too, is in the view in the end, unless it died,
// and all know who is behind.
func TestAgreementAfterAJoin(t *testing.T) {
	for seed := range runs() {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		n := 2 + rng.IntN(5)
		w := newWorld(rng, n)
		newcomer := n + 1
		w.add(newcomer)
		w.members[newcomer].members = []int{newcomer}
		var all []int
		for id := 1; id <= newcomer; id++ {
			all = append(all, id)
		}
		ahead := 0
		for id := 1; id <= n; id++ {
			if rng.IntN(2) == 0 {
				w.members[id].enter(2, all)
				w.members[id].committed = 11
				ahead++
			}
		}
		if ahead > 0 && rng.IntN(2) == 0 { // it has its admission
			w.members[newcomer].enter(2, all)
		}
		dies := 1 + rng.IntN(newcomer)
		w.dead[dies] = true
		w.note("member %d dies", dies)
		w.hangUp(dies, ended)
		w.settle(t)
		for id := 1; id <= n; id++ {
			if w.cut[id] != "" {
				w.fatal(t, "seed %d: member %d is cut off", seed, id)
			}
		}
		lives := slices.DeleteFunc(w.running(), func(id int) bool { return id == newcomer })
		highest := int64(0)
		for _, id := range lives {
			highest = max(highest, w.members[id].committed)
		}
		if highest == 11 { // else the join never was
			w.check(t)
			for _, id := range w.running() {
				last := w.views[id][len(w.views[id])-1]
				if !slices.Equal(last.members, w.running()) {
					w.fatal(t, "seed %d: member %d is in %v of %v", seed, id, last.members, w.running())
				}
				for other, c := range last.committed {
					if c != w.members[other].committed {
						w.fatal(t, "seed %d: member %d takes %d to be at step %d", seed, id, other, c)
					}
				}
			}
		}
	}
}

// A crash is agreed on without waiting for a timer, whatever its rank.
func TestACrashNeedsNoTimer(t *testing.T) {
	for n := 2; n <= 8; n++ {
		for dies := 1; dies <= n; dies++ {
			w := newWorld(rand.New(rand.NewPCG(uint64(n), uint64(dies))), n)
			w.dead[dies] = true
			w.hangUp(dies, ended)
			for w.deliver() {
			}
			w.check(t)
			for _, id := range w.running() {
				if m := w.members[id]; m.base != 2 || len(m.members) != n-1 {
					w.fatal(t, "%d members, %d died: member %d is in view %d of %v at once", n, dies, id, m.base, m.members)
				}
			}
		}
	}
}
