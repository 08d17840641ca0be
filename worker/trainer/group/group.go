// Package group is one run carried out by several trainers, its members: the
// links between them, the sums of a step's gradients, tails, views, who computes
// together after a loss, a leave or an arrival, and the state that is handed over.
// What a training comes to is the same, bit for bit, for any members (DESIGN.md).
//
// The package opens no socket, and knows no libtorch, no coordinator and no lease
// but its token.
package group

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// Memory is a member's sums: torchx.Buckets, or Slices. The calls come from one
// goroutine at a time but for Ready, which another waits in meanwhile.
type Memory interface {
	// Sizes are the floats of each bucket, the same in all members; at most 65,535 buckets.
	Sizes() []int
	// Segment is what peers on this machine may map: a memfd sealed against
	// shrinking, and how many bytes of it. nil: none, all travels in frames.
	Segment() (f *os.File, bytes int64)
	// Contribution is the sum of the node-th greatest whole node of the member's
	// share of the shards present (Nodes counts them), all of the bucket long, and
	// its place in the segment, in bytes.
	Contribution(bucket, node int) ([]float32, int64)
	// Own is all of the bucket long; the piece of the result that this member sums
	// is written at the piece's own place in it. And its place in the segment.
	Own(bucket int) ([]float32, int64)
	// Result is private: the whole sum comes here. Of a member that has all shards
	// it may be the contribution itself.
	Result(bucket int) []float32
	// Ready waits for the next bucket whose contributions are complete; ok false:
	// stop was closed. Each bucket comes once a step. It is not called where the
	// member has no shard of those present.
	Ready(stop <-chan struct{}) (bucket int, ok bool)
	// Sum carries a program out: in[m.To] += in[m.From] in order, then out = in[0];
	// the inputs stay as they are.
	Sum(out []float32, in [][]float32, program []Merge)
}

// State is what a member hands over at a step's boundary, and what it takes.
type State interface {
	// Write writes the whole state after the committed step. It is called inside
	// Begin, or inside Commit of a step that is dirty.
	Write(w io.Writer) error
	// Read takes its place. It is called inside Start, or inside Commit of a member
	// that was behind; after an error, of a giver that died, again from the start.
	Read(r io.Reader) error
}

// Links is where connections to other members come from: links.Receiver.
type Links interface{ Next() (links.Link, error) }

// Config is what a member begins with.
type Config struct {
	Job    trainerproto.Group
	Links  Links
	Engine string // libtorch's version, instructions, kernels, threads per shard, the data's digest, separated by commas: all must be equal
	Step   int64  // of the last step that the state contains: 0, or that of a checkpoint
	State  State
	Mover  Mover // nil: sums go through the host's memory

	Silence time.Duration // 0: 2 s. A member of which nothing is heard for so long is left out
	Stall   time.Duration // 0: never. One that all others wait for so long, too
	Stuck   time.Duration // 0: 10 s. After which moving sums between devices is given up, if nothing moves
	Term    time.Duration // 0: 30 s. In which the members of a start have to reach each other

	Log    *slog.Logger // nil: none
	OnView func(View)   // in every member, inside Start, View and Commit, when a view is in force; again with its Pause after its first step
}

// View is numbered membership.
type View struct {
	Number   int
	Members  []int // by rank: ascending ids
	Rank     int   // own
	From, To int   // own shards
	Step     int64 // last step committed before it
	Reason   string
	Pause    time.Duration // from the last commit before to the first after; 0: not known yet
}

// Group is a member's part in a group. Begin, Commit and View are for one
// goroutine, the trainer's; the others for any.
type Group struct {
	cfg     Config
	self    int
	log     *slog.Logger
	started time.Time
	page    *page // nil: no memory is shared

	mu        sync.Mutex
	cond      *sync.Cond // what Start and Commit wait for has changed
	agree     *agreement
	timer     *time.Timer // of the agreement
	peers     map[int]*peer
	names     map[int]string
	reach     map[int][]int // of founders: whom they have greeted
	view      View          // in force
	seen      View          // as the trainer knows it
	committed int64
	round     *Round
	deferred  []int // whose links ended when they had done all for the step in hand

	giver    int        // who gives the state that this member lacks; 0: it has it
	incoming *statePipe // from the giver
	owed     []int      // who gets the state from this member

	word    word    // of the last view that has one
	carrier Carrier // of the view carried
	carried int
	retired []Carrier // of earlier views, as long as another may wait for what is on its way
	hosted  bool      // moving failed here: this member takes no part in it any more

	segment     *os.File
	segmentNo   int
	leaving     bool
	err         error // final
	closed      bool
	stop        chan struct{}
	closing     sync.WaitGroup
	orphan      time.Duration // of a newcomer: since when it has links to newcomers alone; 0: it has others
	slept       time.Duration // when this process was found not to have run; 0: never since the last commit
	pace        pace
	lastCommit  time.Time
	lastWait    float64
	pause       time.Duration // before the first commit in the view of the step, to be told
	viewChanged time.Time     // last commit before the view in force, whose Pause is not known
}

// Start joins the links up and returns in the first view; of a newcomer when it
// has the state. A newcomer is warm when it calls Start: from then on the others
// may take it in at any step's boundary. Errors: *Mismatch, *Unreachable, *CutOff
// where the others ended or continue without this member.
func Start(ctx context.Context, cfg Config) (*Group, error) {
	g, err := newGroup(cfg)
	if err != nil {
		return nil, err
	}
	if err := g.start(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Group) start(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.fail(ctx.Err())
	})
	defer stop()
	go g.accept()
	go g.watch()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gathered()
	for g.err == nil && (g.view.Number == 0 || g.agree.active || g.giver != 0) {
		if g.giver != 0 && !g.agree.active {
			g.takeState()
			continue
		}
		g.cond.Wait()
	}
	if err := g.err; err != nil {
		g.mu.Unlock()
		g.Close()
		g.mu.Lock()
		return err
	}
	g.lastCommit = time.Now()
	g.see()
	return nil
}

func newGroup(cfg Config) (*Group, error) {
	if cfg.Silence == 0 {
		cfg.Silence = 2 * time.Second
	}
	if cfg.Stuck == 0 {
		cfg.Stuck = 10 * time.Second
	}
	if cfg.Term == 0 {
		cfg.Term = 30 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var ids []int
	names := map[int]string{}
	for _, m := range cfg.Job.Members {
		ids = append(ids, m.Member)
		names[m.Member] = m.Name
	}
	slices.Sort(ids)
	switch {
	case !slices.Contains(ids, cfg.Job.Member):
		return nil, fmt.Errorf("group: member %d is not one of %v", cfg.Job.Member, ids)
	case len(slices.Compact(slices.Clone(ids))) != len(ids):
		return nil, fmt.Errorf("group: a member is twice in %v", ids)
	case cfg.Job.Shards < 1 || !cfg.Job.Join && len(ids) > cfg.Job.Shards:
		return nil, fmt.Errorf("group: %d members for %d shards; each member computes one shard at least", len(ids), cfg.Job.Shards)
	}
	g := &Group{cfg: cfg, self: cfg.Job.Member, log: cfg.Log, started: time.Now(), names: names,
		agree: newAgreement(cfg.Job.Member, patience, cfg.Silence),
		peers: map[int]*peer{}, reach: map[int][]int{}, committed: cfg.Step, stop: make(chan struct{})}
	g.cond = sync.NewCond(&g.mu)
	g.agree.members = ids
	if cfg.Job.Join {
		g.committed, g.agree.members = -1, []int{g.self}
	}
	g.agree.committed = g.committed
	var err error
	if g.page, err = newPage(); err != nil {
		g.log.Warn("memory cannot be shared with members on this machine; sums travel in frames", "error", err)
	}
	return g, nil
}

// patience is how long the higher rank of a broken pair waits for the others'
// word.
const patience = 100 * time.Millisecond

// now is the time since the start.
func (g *Group) now() time.Duration { return time.Since(g.started) }

// View is the view that the next step is to begin in. Between steps it takes up
// what has happened since: a member that was lost costs no step then. While a step
// is in hand it is that step's.
func (g *Group) View() View {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.round != nil && !g.round.over {
		return g.seen
	}
	g.loseDeferred()
	for g.agree.active && g.err == nil {
		g.cond.Wait()
	}
	if g.err == nil && g.giver == 0 && g.view.Number != g.seen.Number {
		g.see()
	}
	return g.seen
}

// loseDeferred takes up the links that ended when that made no difference.
func (g *Group) loseDeferred() {
	for g.err == nil && len(g.deferred) > 0 {
		id := g.deferred[0]
		g.deferred = g.deferred[1:]
		g.lost(id, ended)
	}
}

// Name of a member, for people.
func (g *Group) Name(member int) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.name(member)
}

func (g *Group) name(member int) string {
	if n := g.names[member]; n != "" {
		return n
	}
	return fmt.Sprintf("member %d", member)
}

// Leave asks to leave at the next boundary: the next Commit that succeeds returns
// ErrLeft.
func (g *Group) Leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaving = true
}

// Pace is how the last steps with sums went; nil before the first.
func (g *Group) Pace() *trainerproto.Pace {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pace.summary(g.seen.Members)
}

// fail ends this member's part; the first reason counts.
func (g *Group) fail(err error) {
	if g.err != nil {
		return
	}
	g.err = err
	if g.round != nil {
		g.round.spoil()
	}
	if g.incoming != nil {
		g.incoming.broken = true
	}
	g.cond.Broadcast()
}

// Close ends the links, after what was sent has been written, and frees what the
// group has. The Memory of the last step is not touched any more when it returns.
func (g *Group) Close() {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	g.closed = true
	g.fail(ErrClosed)
	close(g.stop)
	if g.timer != nil {
		g.timer.Stop()
	}
	round := g.round
	for _, p := range g.peers {
		g.part(p)
	}
	g.mu.Unlock()
	if round != nil {
		<-round.pumped
	}
	g.closing.Wait() // the others have ended their links, or had the time to: what was moved to them is there
	for _, c := range append(g.retired, g.carrier) {
		if c != nil {
			c.Close()
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, p := range g.peers {
		p.release()
		delete(g.peers, id)
	}
	g.page.close()
}

// part ends a link once all is written.
func (g *Group) part(p *peer) {
	g.closing.Add(1)
	go func() {
		defer g.closing.Done()
		p.finish(flushWithin)
		select { // what is unread at a close may cost the other what it was sent
		case <-p.done:
		case <-time.After(flushWithin / 4):
			p.conn.Close()
		}
	}()
}

const flushWithin = time.Second

// release frees what a peer's frames refer to.
func (p *peer) release() {
	p.page.close()
	for _, m := range p.segments {
		m.release()
	}
	p.page, p.segments, p.early = nil, map[int]*mapping{}, nil
}
