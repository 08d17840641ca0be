package client_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// heard collects notices; "" is the end of one.
type heard struct {
	mu    sync.Mutex
	texts []string
}

func (h *heard) notice(n *client.Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n == nil {
		h.texts = append(h.texts, "")
	} else {
		h.texts = append(h.texts, n.Text())
	}
}

func (h *heard) all() []string { h.mu.Lock(); defer h.mu.Unlock(); return slices.Clone(h.texts) }

func TestNoticeWhileNobodyAnswers(t *testing.T) {
	var h heard
	addr := closed(t)
	c := client.New([]string{addr}, client.WithRetryFor(2700*time.Millisecond), client.WithNotice(h.notice))
	if _, err := get(t.Context(), c); err == nil {
		t.Fatal("an answer of nobody")
	}
	all := h.all()
	if len(all) < 2 || !strings.HasPrefix(all[0], "no coordinator at "+addr+" yet (connection refused); trying for ") || all[len(all)-1] != "" {
		t.Errorf("%q", all)
	}
}

// A call that takes long at a node that is well is no reason for a notice; one
// at a node that is frozen is, although the call itself is not given up yet.
func TestNoticeOnlyWhereTheNodeIsSilent(t *testing.T) {
	a := serve(t, "a")
	a.set(func(n *node) { n.leader, n.hang = "a", 2*time.Second })
	var h heard
	if _, err := get(t.Context(), client.New([]string{a.addr}, client.WithNotice(h.notice))); err != nil || len(h.all()) > 0 {
		t.Errorf("%v, %q", err, h.all())
	}
	a.set(func(n *node) { n.frozen, n.hang = true, 4*time.Second })
	if _, err := get(t.Context(), client.New([]string{a.addr}, client.WithNotice(h.notice))); err != nil {
		t.Fatal(err)
	}
	if all := h.all(); len(all) < 2 || all[0] != "no coordinator at "+a.addr+" yet (connects, does not answer); trying until one answers" || all[len(all)-1] != "" {
		t.Errorf("%q", all)
	}
}

// Without a leader every coordinator is named, also those that were not given.
func TestNoticeWithoutALeaderNamesAll(t *testing.T) {
	a, gone := serve(t, "a"), closed(t)
	var members []*atelierv1.Member
	for id, addr := range map[string]string{"a": a.addr, "b": gone, "c": closed(t)} {
		members = append(members, &atelierv1.Member{Id: id, ApiAddress: addr, Suffrage: "voter"})
	}
	a.set(func(n *node) { n.err, n.members = noLeader(), members })
	var h heard
	_, err := get(t.Context(), client.New([]string{a.addr}, client.WithRetryFor(1500*time.Millisecond), client.WithNotice(h.notice)))
	const want = "no leader: 1 of 3 coordinators is up (a up; b, c: connection refused); 2 are needed. Start atelier-coordinator on b or c with its old --data"
	if all := h.all(); len(all) < 2 || !strings.HasPrefix(all[0], want+"; trying for ") {
		t.Errorf("%q", all)
	}
	if client.ExitCode(err) != client.ExitNoLeader || client.Message(err) != want {
		t.Errorf("exit %d: %s", client.ExitCode(err), client.Message(err))
	}
}
