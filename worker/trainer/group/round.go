package group

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"
)

// Round is a step in hand: its sums and tails.
type Round struct {
	g       *Group
	step    int64
	mem     Memory // nil: tails alone
	view    View   // in which it began
	present int
	began   time.Time

	sizes   []int
	first   []int // index of each rank's first node among all; one more at the end
	merges  []Merge
	buckets []bucket
	pending int // pieces of results that are missing

	tails    map[int]tail
	mine     bool // Commit was called
	waiting  time.Time
	over     bool // committed
	left     bool // and left
	dirty    bool
	moving   bool        // between devices, or it is not known yet
	failed   time.Time   // when that failed here
	progress time.Time   // when a bucket or a tail came last
	changed  atomic.Bool // dirty, for Changed
	stop     chan struct{}
	pumped   chan struct{} // the goroutine that takes ready buckets is gone
}

// bucket is how far one is.
type bucket struct {
	in      [][]float32 // pieces of the nodes' sums for this member's piece
	missing int         // nodes that have not come
	came    []bool      // by rank: a member without nodes has begun the step, too
	got     []bool      // by rank: pieces of the result
}

// Begin begins a step, numbered from Config.Step+1 on without a gap: the sums of
// m, where so many shards are present, and tails; m nil: tails alone. What the
// member owes others (the state, to a newcomer) is done first.
func (g *Group) Begin(step int64, present int, m Memory) *Round {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &Round{g: g, step: step, mem: m, view: g.seen, present: present, began: g.lastCommit,
		tails: map[int]tail{}, stop: make(chan struct{}), pumped: make(chan struct{})}
	g.give()
	g.round = r
	g.loseDeferred()
	switch {
	case g.err == nil && step != g.committed+1 && !g.agree.active && g.giver == 0 && g.view.Number == g.seen.Number:
		g.fail(fmt.Errorf("group: step %d begins after step %d", step, g.committed))
	case g.err == nil && m != nil && (present < 1 || present > g.cfg.Job.Shards):
		g.fail(fmt.Errorf("group: %d of %d shards present", present, g.cfg.Job.Shards))
	}
	if g.err != nil || g.agree.active || g.giver != 0 || g.view.Number != g.seen.Number {
		r.spoil()
		close(r.pumped)
		return r
	}
	if m == nil {
		close(r.pumped)
	} else if r.lay(); r.dirty {
		close(r.pumped)
		return r
	} else if r.moving = r.offers(); r.moving {
		go r.move()
	} else if r.first[r.view.Rank] == r.first[r.view.Rank+1] {
		for b := range r.sizes {
			r.contribute(b)
		}
		close(r.pumped)
	} else {
		go func() {
			defer close(r.pumped)
			r.pump()
		}()
	}
	for _, id := range r.view.Members {
		if p := g.peers[id]; p != nil {
			r.replay(p)
		}
	}
	return r
}

// lay prepares what the step's sums need.
func (r *Round) lay() {
	members := len(r.view.Members)
	var all []node
	for rank := range members {
		from, to := Share(r.g.cfg.Job.Shards, members, rank)
		r.first = append(r.first, len(all))
		all = append(all, wholes(from, to, r.present)...)
	}
	r.first = append(r.first, len(all))
	r.merges = program(all, r.present)
	r.sizes = slices.Clone(r.mem.Sizes())
	if len(r.sizes) > 1<<16-1 {
		r.g.fail(fmt.Errorf("group: %d buckets", len(r.sizes)))
		return
	}
	r.buckets = make([]bucket, len(r.sizes))
	for b := range r.buckets {
		r.buckets[b] = bucket{in: make([][]float32, len(all)), missing: len(all), came: make([]bool, members), got: make([]bool, members)}
		for rank := range members {
			if lo, hi := piece(r.sizes[b], members, rank); lo < hi {
				r.pending++
			}
		}
	}
	r.announce()
}

// announce passes the memory's segment to the members on this machine that do not
// have it.
func (r *Round) announce() {
	g := r.g
	f, bytes := r.mem.Segment()
	if f == nil {
		return
	}
	if f != g.segment {
		g.segment = f
		g.segmentNo++
	}
	for _, id := range r.view.Members {
		if p := g.peers[id]; p != nil && p.local && !p.gone && p.segment != g.segmentNo {
			p.sendSegment(g.segmentNo, f, bytes)
		}
	}
}

// pump takes the buckets as they become ready.
func (r *Round) pump() {
	for range r.sizes {
		b, ok := r.mem.Ready(r.stop)
		if !ok {
			return
		}
		r.g.mu.Lock()
		if r.dirty {
			r.g.mu.Unlock()
			return
		}
		if b < 0 || b >= len(r.sizes) || r.buckets[b].came[r.view.Rank] {
			r.g.fail(fmt.Errorf("group: bucket %d is ready twice, or there is none", b))
		} else {
			r.contribute(b)
		}
		r.g.mu.Unlock()
	}
}

// spoil makes the step dirty.
func (r *Round) spoil() {
	if !r.dirty && !r.over {
		r.dirty = true
		r.changed.Store(true)
		close(r.stop)
		r.g.cond.Broadcast()
	}
}

// Changed reports whether the step is dirty already: the trainer can stop
// computing it, and call Commit to learn more.
func (r *Round) Changed() bool { return r.changed.Load() }

// Commit waits for all parts of the sums and for all tails, and returns the tails
// by member id: the step is committed then, its sums are in Result. Errors:
// *Changed, ErrLeft (the tails are there, too), *CutOff, or that of the group's
// end. Its own tail is at most 1 MiB less some bytes.
func (r *Round) Commit(data []byte) (map[int][]byte, error) {
	g := r.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(data) > maxTail-4*len(g.peers) {
		return nil, fmt.Errorf("group: tail of %d bytes; at most %d", len(data), maxTail-4*len(g.peers))
	}
	r.waiting = time.Now()
	if !r.dirty && !r.mine {
		t := tail{leaves: g.leaving, ready: g.newcomers(), data: slices.Clone(data),
			pace: sample{r.waiting.Sub(r.began).Seconds(), g.lastWait}}
		r.mine, r.progress = true, r.waiting
		r.tails[g.self] = t
		body := t.append(make([]byte, headerSize))
		header{payload: len(body) - headerSize, kind: kindTail, view: r.view.Number, step: r.step}.append(body[:0])
		for _, id := range r.view.Members {
			if p := g.peers[id]; p != nil {
				p.send(slices.Clone(body), false, -1, nil)
			}
		}
		r.check()
	}
	for !r.over && !r.dirty {
		g.cond.Wait()
	}
	g.mu.Unlock()
	<-r.pumped
	g.mu.Lock()
	if r.over {
		return r.result()
	}
	behind := false
	for g.err == nil && (g.agree.active || g.view.Number == g.seen.Number || g.giver != 0 || len(g.owed) > 0) {
		switch {
		case g.agree.active:
			g.cond.Wait()
		case g.giver != 0:
			behind = g.takeState() || behind
		case len(g.owed) > 0:
			g.give()
		default:
			g.cond.Wait()
		}
	}
	if g.err != nil {
		return nil, g.err
	}
	g.see()
	return nil, &Changed{View: g.seen, Behind: behind}
}

// result is what a committed step returns.
func (r *Round) result() (map[int][]byte, error) {
	g := r.g
	tails := make(map[int][]byte, len(r.tails))
	for id, t := range r.tails {
		tails[id] = t.data
	}
	if r.left {
		g.fail(ErrLeft)
		return tails, ErrLeft
	}
	if g.pause > 0 {
		v := r.view
		v.Pause, g.pause = g.pause, 0
		g.tell(v)
	}
	if g.seen.Number != g.view.Number && !g.agree.active && g.giver == 0 {
		g.see()
	}
	return tails, nil
}

// newcomers are those that this member is ready for, by id.
func (g *Group) newcomers() (ids []int) {
	for _, p := range g.linked() {
		if p.join {
			ids = append(ids, p.id)
		}
	}
	return ids
}

// check commits the step if nothing is missing.
func (r *Round) check() {
	if r.over || r.dirty || !r.mine || r.pending > 0 || len(r.tails) < len(r.view.Members) {
		return
	}
	g := r.g
	for _, id := range r.view.Members {
		if p := g.peers[id]; p != nil && p.page.abandoned() >= r.view.Number {
			if p.gone {
				g.lost(id, ended)
			}
			return // its memory may have been used again: its proposal is on the way
		}
	}
	r.over = true
	g.commit(r)
	g.cond.Broadcast()
}

// commit is the boundary after a step: who asked to leave leaves, and a newcomer
// that all are ready for is a member. All members have the same tails, so all come
// to the same view.
func (g *Group) commit(r *Round) {
	now := time.Now()
	g.committed, g.agree.committed = r.step, r.step
	g.slept = 0
	if r.mem != nil {
		g.pace.add(now.Sub(r.began).Seconds(), r.tails)
	}
	g.lastWait = now.Sub(r.waiting).Seconds()
	if !g.viewChanged.IsZero() {
		g.pause = now.Sub(g.viewChanged)
		g.viewChanged = time.Time{}
	}
	g.lastCommit = now
	stay := []int{}
	var leavers, joiners []int
	ready := map[int]int{}
	for _, id := range slices.Sorted(maps.Keys(r.tails)) {
		if r.tails[id].leaves {
			leavers = append(leavers, id)
		} else {
			stay = append(stay, id)
		}
		for _, newcomer := range r.tails[id].ready {
			ready[newcomer]++
		}
	}
	for id, n := range ready {
		if n == len(r.tails) && len(stay) > 0 && !slices.Contains(r.view.Members, id) {
			joiners = append(joiners, id)
		}
	}
	slices.Sort(joiners)
	if room := g.cfg.Job.Shards - len(stay); len(joiners) > room {
		joiners = joiners[:max(0, room)] // each member computes one shard at least
	}
	g.rearrange(stay, leavers, joiners)
}
