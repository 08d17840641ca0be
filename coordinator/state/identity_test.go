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

func TestKeepIdentity(t *testing.T) {
	saved := state.New()
	apply(saved, setMember("n1", "c-old", "f-old"))
	present := state.New()
	apply(present, setMember("n1", "c-1", "f-1"))
	apply(present, setMember("n2", "", "f-2"))
	apply(present, &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: "n2"}}})
	saved.KeepIdentity(present.View())
	v := again(t, saved).View()
	if v.ClusterID() != "c-1" || !slices.Equal(v.Members(), present.View().Members()) || !v.Removed("f-2") || v.Index() != 1 {
		t.Errorf("cluster %s, members %v", v.ClusterID(), v.Members())
	}
	apply(saved, setMember("n3", "", "f-3"))
	if len(present.View().Members()) != 1 {
		t.Error("the two share what changes")
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
