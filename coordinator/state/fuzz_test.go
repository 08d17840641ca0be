package state_test

import (
	"bytes"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"

	"google.golang.org/protobuf/proto"
)

func FuzzRestore(f *testing.F) {
	c := newChaos(1)
	m := state.New()
	f.Add([]byte{})
	for i := range uint64(60) {
		v := m.View()
		m.Apply(i+1, &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v)}})
		if i%20 == 19 {
			var b bytes.Buffer
			m.View().WriteTo(&b)
			f.Add(b.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := state.New()
		empty := m.View().Hash()
		if err := m.Restore(bytes.NewReader(data)); err != nil {
			if m.View().Hash() != empty {
				t.Fatal("a refused snapshot changed the state")
			}
			return
		}
		v := m.View()
		h := v.Hash()
		if restored(t, v).View().Hash() != h {
			t.Fatal("saved and restored, another hash")
		}
		c := newChaos(uint64(len(data)))
		for i := range uint64(20) {
			m.Apply(v.Index()+i+1, &logv1.Entry{Commands: []*logv1.Command{c.command(m.View()), c.command(m.View())}})
		}
		readAll(m.View())
		if v.Hash() != h {
			t.Fatal("a view changed")
		}
	})
}

// FuzzStageRestore: a stream in parts is taken where it is taken in one piece, and
// leaves a state that can be saved and read again.
func FuzzStageRestore(f *testing.F) {
	c := newChaos(2)
	m := state.New()
	for i := range uint64(60) {
		v := m.View()
		m.Apply(i+1, &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v), c.command(v)}})
		if i%20 == 19 {
			var b bytes.Buffer
			m.View().WriteTo(&b)
			f.Add(b.Bytes(), uint16(100*i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, part uint16) {
		m := state.New()
		before := m.View()
		h := before.Hash()
		index, ok := uint64(0), true
		for _, cmd := range restoring("r", data, int(part)+1, 0) {
			index++
			r := m.Apply(index, &logv1.Entry{Commands: []*logv1.Command{cmd}})[0]
			ok = ok && r.Err == nil
		}
		if ok && state.New().Restore(bytes.NewReader(data)) != nil {
			t.Fatal("in parts it was taken, in one piece it is not")
		}
		if id, _ := m.View().Restored(); (id == "r") != ok {
			t.Fatalf("restored is %q, the commands succeeded: %v", id, ok)
		}
		readAll(m.View())
		if restored(t, m.View()).View().Hash() != m.View().Hash() {
			t.Fatal("saved and restored, another hash")
		}
		if before.Hash() != h {
			t.Fatal("a view changed")
		}
	})
}

func FuzzApply(f *testing.F) {
	c := newChaos(1)
	m := state.New()
	for i := range uint64(40) {
		v := m.View()
		e := &logv1.Entry{Commands: []*logv1.Command{c.command(v), c.command(v)}}
		m.Apply(i+1, e)
		data, _ := proto.Marshal(e)
		f.Add(data)
	}
	var base bytes.Buffer
	m.View().WriteTo(&base)
	f.Fuzz(func(t *testing.T, data []byte) {
		var e logv1.Entry
		if proto.Unmarshal(data, &e) != nil {
			return
		}
		m := state.New()
		if err := m.Restore(bytes.NewReader(base.Bytes())); err != nil {
			t.Fatal(err)
		}
		before := m.View()
		h := before.Hash()
		for i := range uint64(3) {
			if got := m.Apply(before.Index()+i+1, &e); len(got) != len(e.Commands) {
				t.Fatalf("%d results for %d commands", len(got), len(e.Commands))
			}
		}
		v := m.View()
		readAll(v)
		if restored(t, v).View().Hash() != v.Hash() {
			t.Fatal("saved and restored, another hash")
		}
		if before.Hash() != h {
			t.Fatal("a view changed")
		}
	})
}
