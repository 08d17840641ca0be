package group_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
)

// queue is where a member of a test gets its links from.
type queue chan links.Link

func (q queue) Next() (links.Link, error) {
	l, ok := <-q
	if !ok {
		return l, io.EOF
	}
	return l, nil
}

func name(id int) string { return fmt.Sprintf("w%d/cpu0", id) }

// connect links two members.
func connect(t testing.TB, token uint64, a, b int, qa, qb queue, local bool) (net.Conn, net.Conn) {
	t.Helper()
	fa, fb, err := links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ca, cb := conn(t, fa), conn(t, fb)
	qa <- links.Link{Header: links.Header{Token: token, Member: b, Name: name(b), Local: local}, Conn: ca}
	qb <- links.Link{Header: links.Header{Token: token, Member: a, Name: name(a), Local: local}, Conn: cb}
	return ca, cb
}

func conn(t testing.TB, f *os.File) net.Conn {
	t.Helper()
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// model is a tiny training: weights and momentum, whose gradients are a function
// of (weights, step, shard).
type model struct {
	step     int64
	weights  []float32
	momentum []float32
}

var bucketSizes = []int{100, 1, 0, 1031, 40}

func newModel() *model {
	n := 0
	for _, s := range bucketSizes {
		n += s
	}
	m := &model{weights: make([]float32, n), momentum: make([]float32, n)}
	for i := range m.weights {
		m.weights[i] = float32(math.Sin(float64(i)))
	}
	return m
}

func (m *model) gradient(shard int, out []float32) {
	for i, w := range m.weights {
		x := float64(i)*0.37 + float64(m.step)*1.3 + float64(shard)*2.1
		out[i] = float32(math.Sin(x)) + w*float32(0.01*float64(shard+1))
	}
}

func (m *model) apply(sum []float32) {
	m.step++
	for i := range m.weights {
		m.momentum[i] = m.momentum[i]*0.9 + sum[i]
		m.weights[i] -= m.momentum[i] * 0.01
	}
}

func (m *model) Write(w io.Writer) error {
	if err := binary.Write(w, binary.LittleEndian, m.step); err != nil {
		return err
	}
	if err := binary.Write(w, binary.LittleEndian, m.weights); err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, m.momentum)
}

func (m *model) Read(r io.Reader) error {
	if err := binary.Read(r, binary.LittleEndian, &m.step); err != nil {
		return err
	}
	if err := binary.Read(r, binary.LittleEndian, m.weights); err != nil {
		return err
	}
	return binary.Read(r, binary.LittleEndian, m.momentum)
}

func (m *model) hash() string {
	var b bytes.Buffer
	m.Write(&b)
	return fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))
}

// present is how many shards a step has: now and then fewer.
func present(step int64, shards int) int {
	if step%5 == 4 {
		return 1 + int(step)%shards
	}
	return shards
}

// oneMember is the hash that one member ends with, computed without a group.
func oneMember(shards int, steps int64) string {
	m := newModel()
	var tree func(level, i, present int) []float32
	tree = func(level, i, present int) []float32 {
		if level == 0 {
			out := make([]float32, len(m.weights))
			m.gradient(i, out)
			return out
		}
		left := tree(level-1, 2*i, present)
		if (2*i+1)<<(level-1) < present {
			for k, v := range tree(level-1, 2*i+1, present) {
				left[k] += v
			}
		}
		return left
	}
	for m.step < steps {
		p, level := present(m.step+1, shards), 0
		for 1<<level < p {
			level++
		}
		m.apply(tree(level, 0, p))
	}
	return m.hash()
}

// trainee is a member of a test.
type trainee struct {
	id     int
	model  *model
	group  *group.Group
	leave  func(step int64) bool
	pause  func() // within each shard
	shared bool
	views  []group.View
	behind int
	redone int // steps
	tails  map[int][]byte
}

// shard computes the contributions of a step: all nodes of the member's shards.
func (tr *trainee) compute(r *group.Round, m *group.Slices, v group.View, shards, present int) bool {
	nodes := group.Wholes(v.From, v.To, present)
	sums := make([][]float32, len(nodes))
	for k, n := range nodes {
		var tree func(level, i int) []float32
		tree = func(level, i int) []float32 {
			if level == 0 {
				if tr.pause != nil {
					tr.pause()
				}
				out := make([]float32, len(tr.model.weights))
				tr.model.gradient(i, out)
				return out
			}
			left := tree(level-1, 2*i)
			if (2*i+1)<<(level-1) < present {
				for k, v := range tree(level-1, 2*i+1) {
					left[k] += v
				}
			}
			return left
		}
		sums[k] = tree(n[0], n[1])
		if r.Changed() {
			return false
		}
	}
	if len(nodes) == 0 {
		return true
	}
	at := len(tr.model.weights)
	for b := len(bucketSizes) - 1; b >= 0; b-- { // the last ones are ready first
		at -= bucketSizes[b]
		for k := range nodes {
			c, _ := m.Contribution(b, k)
			copy(c, sums[k][at:])
		}
		m.Done(b)
	}
	return true
}

// train runs to the last step, and returns how the member ended.
func (tr *trainee) train(shards int, steps int64) error {
	for tr.model.step < steps {
		v := tr.group.View()
		p := present(tr.model.step+1, shards)
		m, err := group.NewSlices(bucketSizes, max(1, group.Nodes(v.From, v.To, p)), tr.shared)
		if err != nil {
			return err
		}
		if tr.leave != nil && tr.leave(tr.model.step+1) {
			tr.group.Leave()
		}
		r := tr.group.Begin(tr.model.step+1, p, m)
		tr.compute(r, m, v, shards, p)
		tails, err := r.Commit([]byte{byte(tr.id), byte(tr.model.step)})
		if err == nil || errors.Is(err, group.ErrLeft) {
			for id, tail := range tails {
				if !bytes.Equal(tail, []byte{byte(id), byte(tr.model.step)}) {
					return fmt.Errorf("tail of member %d at step %d: %v", id, tr.model.step+1, tail)
				}
			}
			var sum []float32
			for b := range bucketSizes {
				sum = append(sum, m.Result(b)...)
			}
			tr.tails = tails
			tr.model.apply(sum)
		}
		m.Free()
		var changed *group.Changed
		if errors.As(err, &changed) {
			tr.redone++
			if changed.Behind {
				tr.behind++
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

type member struct {
	trainee
	cfg   group.Config
	links queue
}

func newMember(id int, ids []int, shards int, join bool) *member {
	m := &member{trainee: trainee{id: id, model: newModel(), shared: true}, links: make(queue, 64)}
	job := trainerproto.Group{Token: 7, Member: id, Shards: shards, Join: join}
	for _, other := range ids {
		job.Members = append(job.Members, trainerproto.Fellow{Member: other, Name: name(other)})
	}
	m.cfg = group.Config{Job: job, Links: m.links, Engine: "libtorch 2.6, avx2", State: m.model, Term: 5 * time.Second,
		OnView: func(v group.View) { m.views = append(m.views, v) }}
	if os.Getenv("GROUP_LOG") != "" {
		m.cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("me", id)
	}
	return m
}

func (m *member) run(shards int, steps int64) error {
	g, err := group.Start(context.Background(), m.cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	m.group = g
	defer g.Close()
	return m.train(shards, steps)
}

func ids(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// Any number of members, over shared memory and over frames, comes to what one
// member comes to.
func TestSameBitsForAnyMembers(t *testing.T) {
	for _, shards := range []int{1, 2, 5, 6, 7, 8} {
		want := oneMember(shards, 12)
		for n := 1; n <= shards; n++ {
			for _, local := range []bool{true, false} {
				var members []*member
				for _, id := range ids(n) {
					members = append(members, newMember(id, ids(n), shards, false))
				}
				for i, a := range members {
					for _, b := range members[i+1:] {
						connect(t, 7, a.id, b.id, a.links, b.links, local)
					}
				}
				errs := make([]error, n)
				var wg sync.WaitGroup
				for i, m := range members {
					wg.Go(func() { errs[i] = m.run(shards, 12) })
				}
				wg.Wait()
				for i, m := range members {
					if errs[i] != nil {
						t.Fatalf("%d shards, %d members, local %v: member %d: %v", shards, n, local, m.id, errs[i])
					}
					if m.model.hash() != want {
						t.Fatalf("%d shards, %d members, local %v: member %d ends with another state than one member", shards, n, local, m.id)
					}
					if len(m.tails) != n {
						t.Fatalf("%d tails of %d members", len(m.tails), n)
					}
				}
			}
		}
	}
}
