package state_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

func setMember(id, cluster, folder string) *logv1.Command {
	return &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{Id: id, RaftAddress: "r-" + id, ClusterId: cluster, FolderId: folder}}}
}

func apply(m *state.Machine, c *logv1.Command) state.Result {
	return m.Apply(m.View().Index()+1, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
}

func again(t *testing.T, m *state.Machine) *state.Machine {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.View().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	n := state.New()
	if err := n.Restore(&b); err != nil {
		t.Fatal(err)
	}
	if n.View().Hash() != m.View().Hash() {
		t.Error("a snapshot of it has another hash")
	}
	return n
}

func TestRecoverMakesANewCluster(t *testing.T) {
	m := state.New()
	for i := range 3 {
		apply(m, setMember(fmt.Sprintf("n%d", i), "c-1", fmt.Sprintf("f-%d", i)))
	}
	before := m.View()
	only, _ := before.Member("n1")
	if err := m.Recover("c-1", only); err == nil {
		t.Error("recovered as itself")
	}
	if err := m.Recover("c-2", only); err != nil {
		t.Fatal(err)
	}
	v := again(t, m).View()
	if v.ClusterID() != "c-2" || !slices.Equal(v.Former(), []string{"c-1"}) || len(v.Members()) != 1 || v.Members()[0] != only || v.Index() != before.Index() {
		t.Errorf("cluster %s, once %v, members %v at %d", v.ClusterID(), v.Former(), v.Members(), v.Index())
	}
	if !v.Removed("f-0") || v.Removed("f-1") || !v.Removed("f-2") || before.Removed("f-0") || before.ClusterID() != "c-1" {
		t.Error("who is removed")
	}
	for i := range 40 { // again and again: what is remembered stays bounded
		if err := m.Recover(fmt.Sprintf("c-%d", i+3), only); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(again(t, m).View().Former()); n != 16 {
		t.Errorf("%d former clusters", n)
	}
}

// A restore brings sweeps back, not memberships.
func TestARestoreKeepsWhoBelongs(t *testing.T) {
	other := state.New()
	apply(other, setMember("n1", "c-old", "f-old"))
	apply(other, setMember("n7", "", "f-7"))
	apply(other, &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: "n7"}}})
	m := state.New()
	apply(m, setMember("n1", "c-1", "f-1"))
	apply(m, setMember("n2", "", "f-2"))
	apply(m, &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: "n2"}}})
	if err := m.Recover("c-2", m.View().Members()[0]); err != nil {
		t.Fatal(err)
	}
	before := m.View()
	for _, c := range restoring("r", saved(t, other.View()), 100, 0) {
		if r := apply(m, c); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	v := again(t, m).View()
	if v.ClusterID() != "c-2" || !slices.Equal(v.Members(), before.Members()) || !v.Removed("f-2") || v.Removed("f-7") || !slices.Equal(v.Former(), []string{"c-1"}) {
		t.Errorf("cluster %s, members %v, former %v, removed f-2 %t, f-7 %t", v.ClusterID(), v.Members(), v.Former(), v.Removed("f-2"), v.Removed("f-7"))
	}
}

func TestRemovedMembersAreBounded(t *testing.T) {
	m := state.New()
	for i := range 1100 {
		apply(m, setMember("n", "c", fmt.Sprintf("f-%d", i)))
		apply(m, &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: "n"}}})
	}
	v := again(t, m).View()
	if v.Removed("f-0") || v.Removed("f-75") || !v.Removed("f-76") || !v.Removed("f-1099") {
		t.Error("the last 1024 are to be remembered")
	}
}
