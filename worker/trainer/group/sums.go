package group

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// dispatch takes a frame of a step: of an earlier one it is dropped, of a later
// one kept until it begins here.
func (g *Group) dispatch(p *peer, f frame) error {
	r := g.round
	if f.kind == kindMeeting {
		return g.meeting(p, f)
	}
	switch {
	case f.view < g.view.Number || f.view == g.view.Number && f.step <= g.committed:
		return nil
	case r != nil && !r.dirty && !r.over && f.view == r.view.Number && f.step == r.step:
		return r.take(p, f)
	case f.view == g.view.Number && r != nil && r.dirty && r.view.Number == f.view:
		return nil // the step is dirty
	}
	if len(p.early) >= maxEarly {
		return fmt.Errorf("more than %d frames of steps to come", maxEarly)
	}
	p.early = append(p.early, f)
	return nil
}

// maxEarly bounds what a member is sent before it begins the step: all parts of
// all buckets, and a tail.
const maxEarly = 1 << 20

// replay takes what came before the step began.
func (r *Round) replay(p *peer) {
	early := p.early
	p.early = nil
	for _, f := range early {
		if err := r.g.dispatch(p, f); err != nil {
			r.g.log.Warn("the link to a member is of no use", "member", p.name, "error", err)
			p.conn.Close() // its reader sees the end
			return
		}
	}
}

func (r *Round) take(p *peer, f frame) error {
	rank, member := r.rank(p.id)
	if !member {
		return nil
	}
	if f.kind == kindTail {
		t, err := decodeTail(f.b)
		if err != nil {
			return err
		}
		r.tails[p.id], r.progress = t, time.Now()
		r.check()
		return nil
	}
	if f.bucket >= len(r.sizes) {
		return fmt.Errorf("bucket %d of %d", f.bucket, len(r.sizes))
	}
	switch f.kind {
	case kindPlaces, kindPart:
		return r.part(p, rank, f)
	default:
		return r.result_(p, rank, f)
	}
}

func (r *Round) rank(id int) (int, bool) {
	for rank, m := range r.view.Members {
		if m == id {
			return rank, true
		}
	}
	return 0, false
}

// part takes another's contributions to this member's piece of a bucket.
func (r *Round) part(p *peer, rank int, f frame) error {
	lo, hi := piece(r.sizes[f.bucket], len(r.view.Members), r.view.Rank)
	nodes := r.first[rank+1] - r.first[rank]
	if f.header.floats != hi-lo {
		return fmt.Errorf("%d floats for a piece of %d of bucket %d: the members have other models", f.header.floats, hi-lo, f.bucket)
	}
	b := &r.buckets[f.bucket]
	if b.came[rank] {
		return fmt.Errorf("bucket %d twice", f.bucket)
	}
	if f.kind == kindPlaces {
		segment, offsets := decodePlaces(f.b)
		if len(offsets) != nodes {
			return fmt.Errorf("%d nodes of bucket %d, not %d", len(offsets), f.bucket, nodes)
		}
		for k, offset := range offsets {
			in, err := p.segments[segment].floats(offset, hi-lo)
			if err != nil {
				return err
			}
			b.in[r.first[rank]+k] = in
		}
		b.missing -= nodes
		b.came[rank] = true
	} else {
		if f.node >= nodes {
			return fmt.Errorf("node %d of %d", f.node, nodes)
		}
		if f.at+f.payload/4 < f.header.floats {
			return nil // more of it comes
		}
		if b.in[r.first[rank]+f.node] != nil {
			return fmt.Errorf("node %d of bucket %d twice", f.node, f.bucket)
		}
		b.in[r.first[rank]+f.node] = f.floats
		b.missing--
		b.came[rank] = f.node == nodes-1
	}
	r.sum(f.bucket)
	return nil
}

// contribute makes this member's sums of a bucket known to the pieces' owners.
func (r *Round) contribute(bucket int) {
	members := len(r.view.Members)
	first, end := r.first[r.view.Rank], r.first[r.view.Rank+1]
	segment, _ := r.mem.Segment()
	for rank, id := range r.view.Members {
		lo, hi := piece(r.sizes[bucket], members, rank)
		if lo == hi {
			continue
		}
		h := header{view: r.view.Number, step: r.step, bucket: bucket, floats: hi - lo}
		p := r.g.peers[id]
		switch {
		case rank == r.view.Rank:
			b := &r.buckets[bucket]
			for k := range end - first {
				c, _ := r.mem.Contribution(bucket, k)
				b.in[first+k] = c[lo:hi]
			}
			b.missing -= end - first
			b.came[rank] = true
		case p == nil:
		case p.local && segment != nil || first == end:
			var offsets []int64
			for k := range end - first {
				_, at := r.mem.Contribution(bucket, k)
				offsets = append(offsets, at+4*int64(lo))
			}
			h.kind, h.node, h.payload = kindPlaces, end-first, placesSize(end-first)
			p.send(appendPlaces(h.append(nil), r.g.segmentNo, offsets...), false, -1, nil)
		default:
			for k := range end - first {
				c, _ := r.mem.Contribution(bucket, k)
				h.kind, h.node = kindPart, k
				p.sendFloats(h, c[lo:hi])
			}
		}
	}
	r.sum(bucket)
}

// sendFloats sends a piece in frames.
func (p *peer) sendFloats(h header, piece []float32) {
	for at := 0; at < len(piece); at += maxPayload / 4 {
		part := piece[at:min(at+maxPayload/4, len(piece))]
		h.at, h.payload = at, 4*len(part)
		pool := payloads.Get().(*[]byte)
		p.send(append(h.append((*pool)[:0]), bytesOf(part)...), false, -1, pool)
	}
}

// sum completes this member's piece of a bucket once all contributions are there,
// and gives it to all.
func (r *Round) sum(bucket int) {
	b := &r.buckets[bucket]
	members := len(r.view.Members)
	lo, hi := piece(r.sizes[bucket], members, r.view.Rank)
	if lo == hi || b.missing > 0 || b.in == nil {
		return
	}
	for _, came := range b.came {
		if !came {
			return
		}
	}
	result := r.mem.Result(bucket)[lo:hi]
	if members == 1 {
		if c := b.in[0]; &c[0] != &result[0] {
			copy(result, c)
		}
	} else {
		own, at := r.mem.Own(bucket)
		own = own[lo:hi]
		r.mem.Sum(own, b.in, r.merges)
		segment, _ := r.mem.Segment()
		h := header{view: r.view.Number, step: r.step, bucket: bucket, floats: hi - lo}
		for _, id := range r.view.Members {
			if p := r.g.peers[id]; p == nil {
			} else if p.local && segment != nil {
				h.kind, h.payload = kindPlace, placesSize(1)
				p.send(appendPlaces(h.append(nil), r.g.segmentNo, at+4*int64(lo)), false, -1, nil)
			} else {
				h.kind = kindResult
				p.sendFloats(h, own)
			}
		}
		copy(result, own)
	}
	b.in = nil
	r.pending--
	r.check()
}

// result_ takes another's piece of the result.
func (r *Round) result_(p *peer, rank int, f frame) error {
	lo, hi := piece(r.sizes[f.bucket], len(r.view.Members), rank)
	if f.header.floats != hi-lo {
		return fmt.Errorf("a result of %d floats for a piece of %d of bucket %d", f.header.floats, hi-lo, f.bucket)
	}
	if r.buckets[f.bucket].got[rank] {
		return fmt.Errorf("the result of bucket %d twice", f.bucket)
	}
	result := r.mem.Result(f.bucket)[lo:hi]
	if f.kind == kindPlace {
		segment, offsets := decodePlaces(f.b)
		from, err := p.segments[segment].floats(offsets[0], hi-lo)
		if err != nil {
			return err
		}
		copy(result, from)
	} else {
		end := f.at + f.payload/4
		copy(result[f.at:end], f.floats[f.at:end])
		if end < hi-lo {
			return nil
		}
	}
	r.buckets[f.bucket].got[rank] = true
	r.pending--
	r.check()
	return nil
}

// has reports whether all that a member adds to the step has come.
func (r *Round) has(id int) bool {
	_, tail := r.tails[id]
	rank, member := r.rank(id)
	if !tail || !member {
		return false
	}
	if r.mem == nil {
		return true
	}
	for b, floats := range r.sizes {
		bucket := &r.buckets[b]
		lo, hi := piece(floats, len(r.view.Members), r.view.Rank)
		if lo < hi && !bucket.came[rank] {
			return false
		}
		if lo, hi := piece(floats, len(r.view.Members), rank); lo < hi && !bucket.got[rank] {
			return false
		}
	}
	return true
}

func (p *peer) sendSegment(number int, f *os.File, bytes int64) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		p.g.fail(fmt.Errorf("group: pass the memory of sums: %w", err))
		return
	}
	p.segment = number
	h := header{kind: kindSegment, node: number, payload: 8}
	p.send(binary.LittleEndian.AppendUint64(h.append(nil), uint64(bytes)), true, fd, nil)
}

// map_ maps the segment that a peer passed. The one before stays until the next:
// results in it may be on the way.
func (p *peer) map_(f frame) error {
	m, err := mapSegment(f.fd, int64(binary.LittleEndian.Uint64(f.b)))
	if err != nil {
		return err
	}
	for number, old := range p.segments {
		if number < f.node-1 {
			old.release()
			delete(p.segments, number)
		}
	}
	p.segments[f.node] = m
	return nil
}
