package group

import (
	"io"
	"log/slog"
	"net"
	"reflect"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

func TestHeaderComesBack(t *testing.T) {
	for k := kindHello; k < kinds; k++ {
		h := header{kind: k, bucket: 65535, view: 1 << 20, node: 3, step: 1 << 40, at: 5, floats: 100}
		switch k {
		case kindPart, kindResult:
			h.payload = 4 * 95
		case kindPlaces:
			h.payload = placesSize(3)
		case kindPlace:
			h.payload = placesSize(1)
		case kindSegment:
			h.payload = 8
		case kindTail:
			h.payload = tailHead
		}
		back, err := decodeHeader(h.append(nil))
		if err != nil || back != h {
			t.Errorf("%+v comes back as %+v, %v", h, back, err)
		}
		if k == kindPart || k == kindResult {
			h.payload += 4
			if _, err := decodeHeader(h.append(nil)); err == nil {
				t.Errorf("%+v: floats beyond the piece are read", h)
			}
		}
	}
	if segment, offsets := decodePlaces(appendPlaces(nil, 7, 8, 1<<40)); segment != 7 || !reflect.DeepEqual(offsets, []int64{8, 1 << 40}) {
		t.Errorf("places come back as %d, %v", segment, offsets)
	}
}

func TestTailComesBack(t *testing.T) {
	for _, want := range []tail{{data: []byte{}}, {leaves: true, ready: []int{3, 9}, pace: sample{0.5, 2}, data: []byte("abc")}} {
		got, err := decodeTail(want.append(nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v comes back as %+v, %v", want, got, err)
		}
	}
}

func FuzzTail(f *testing.F) {
	f.Add(tail{leaves: true, ready: []int{3, 9}, pace: sample{0.5, 2}, data: []byte("abc")}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if tl, err := decodeTail(b); err == nil {
			if again, err := decodeTail(tl.append(nil)); err != nil || len(again.ready) != len(tl.ready) || string(again.data) != string(tl.data) {
				t.Fatalf("%+v comes back as %+v, %v", tl, again, err)
			}
		}
	})
}

// FuzzFrames lets a member read anything from a link, in the middle of a step: it
// ends the link, or takes it, and never fails itself but by what a member may
// decide (the start is refused, it is cut off).
func FuzzFrames(f *testing.F) {
	hi := hello{Version: trainerproto.GroupVersion, Token: 7, Member: 2, Name: "b", Engine: "x", Shards: 4, Mover: "a library 1", Device: "two"}
	begun := message(kindHello, hi)
	with := func(frames ...[]byte) (all []byte) {
		for _, b := range frames {
			all = append(all, b...)
		}
		return all
	}
	propose := message(kindPropose, proposal{Base: 1, Members: []int{1, 2}, Target: 2, Set: []int{1, 2}})
	floats := make([]float32, 48)
	part := append(header{kind: kindPart, view: 1, step: 1, floats: 48, payload: 192}.append(nil), bytesOf(floats)...)
	result := append(header{kind: kindResult, view: 1, step: 1, floats: 52, payload: 208}.append(nil), bytesOf(make([]float32, 52))...)
	tl := tail{data: []byte("x"), ready: []int{3}}.append(nil)
	tailFrame := append(header{kind: kindTail, view: 1, step: 1, payload: len(tl)}.append(nil), tl...)
	places := appendPlaces(header{kind: kindPlaces, view: 1, step: 1, node: 1, floats: 48, payload: placesSize(1)}.append(nil), 1, 64)
	f.Add(with(propose, part, result, tailFrame))
	f.Add(with(propose, places))
	f.Add(with(header{kind: kindMeeting, view: 1, payload: 3}.append(nil), []byte("abc"), header{kind: kindMeeting, view: 2}.append(nil)))
	f.Add(with(message(kindPropose, proposal{Base: 3, Members: []int{1, 2, 5}, Target: 4, Set: []int{2, 5}, Lost: []loss{{1, ended}}})))
	f.Add(with(message(kindAdmit, admission{Number: 2, Members: []int{1, 2}}), header{kind: kindStateEnd, view: 2}.append(nil)))
	f.Add(with(message(kindReach, reaches{[]int{1}}), message(kindRefuse, refusal{})))
	f.Fuzz(func(t *testing.T, b []byte) {
		q := make(queued, 1)
		g, err := newGroup(Config{Engine: "x", Links: q, Silence: time.Hour, Log: slog.New(slog.DiscardHandler),
			Job: trainerproto.Group{Token: 7, Member: 1, Shards: 4, Members: []trainerproto.Fellow{{Member: 1, Name: "a"}, {Member: 2, Name: "b"}}}})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		g.take(links.Link{Header: links.Header{Token: 7, Member: 2, Name: "b"}, Conn: here})
		go io.Copy(io.Discard, there)
		there.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := there.Write(begun); err != nil {
			t.Fatal(err)
		}
		for greeted := false; !greeted; time.Sleep(time.Microsecond) {
			g.mu.Lock()
			greeted = g.peers[2].greeted
			g.mu.Unlock()
		}
		g.mu.Lock()
		g.agree.enter(1, []int{1, 2})
		g.install(1, []int{1, 2}, 0, "start")
		g.seen = g.view
		g.mu.Unlock()
		m, err := NewSlices([]int{100}, 4, false)
		if err != nil {
			t.Fatal(err)
		}
		m.Done(0)
		r := g.Begin(1, 4, m)
		done := make(chan struct{})
		go func() { r.Commit(nil); close(done) }()
		there.Write(b)
		there.Close()
		g.Close()
		<-done
	})
}

type queued chan links.Link

func (q queued) Next() (links.Link, error) { return links.Link{}, io.EOF }
