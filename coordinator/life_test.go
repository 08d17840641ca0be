package main

import (
	"fmt"
	"slices"
	"testing"

	"atelier/coordinator/coordinatortest"
)

// The leader dies at every tenth proposal, and the points are the same as without
// any failure.
func TestProposalsAreTheSameAfterFailures(t *testing.T) {
	const budget, parallelism = 40, 4
	points := func(nodes int, kill bool) (list []string) {
		cl := startCluster(t, nodes)
		c := cl.client()
		sw := raw(c).Create(t, coordinatortest.ExternalSpec("bayesian", "{trials: 40}", parallelism))
		kills := 0
		raw(c).Play(t, sw.Id, parallelism, budget, func(done int64) {
			if !kill || done%10 != 5 {
				return
			}
			l := cl.waitLeader()
			id := l.Config.ID
			l.crash(t)
			cl.nodes = slices.DeleteFunc(cl.nodes, func(n *node) bool { return n == l })
			cl.waitLeader()
			cl.start(id)
			kills++
			c = cl.client()
		})
		if kill && kills != 4 {
			t.Fatalf("%d leaders were killed", kills)
		}
		until(t, "the end", func() bool { return raw(c).Sweep(t, sw.Id).EndedMs != 0 })
		for _, tr := range raw(c).TrialsOf(t, sw.Id) {
			list = append(list, fmt.Sprintf("%d seen %d %s", tr.Number, tr.ProposedSeen, tr.ParamsJson))
		}
		v := raw(c).Verify(t, sw.Id)
		if len(v.Differences) > 0 || v.Checked != budget || v.Unchecked != 0 {
			t.Errorf("verify: %v", v)
		}
		return list
	}
	want, got := points(1, false), points(3, true)
	if len(want) != budget || !slices.Equal(want, got) {
		for i := range want {
			if i >= len(got) || want[i] != got[i] {
				t.Fatalf("without a failure %s\nwith failures %v", want[i], got[min(i, len(got)):])
			}
		}
		t.Fatalf("%d and %d points", len(want), len(got))
	}
}
