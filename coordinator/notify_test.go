package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/coordinator/duty/notify"
)

// TestEndIsPostedByTheNextLeader: the server fails, the leader crashes, and the next one
// posts the end; once it is taken nobody posts it again. What may be secret of the address
// stands in no log and no answer.
func TestEndIsPostedByTheNextLeader(t *testing.T) {
	was := notify.Pauses
	notify.Pauses = []time.Duration{300 * time.Millisecond, 300 * time.Millisecond, time.Second, time.Second}
	t.Cleanup(func() { notify.Pauses = was })
	var posts atomic.Int32
	var works atomic.Bool
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		posts.Add(1)
		if !works.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(web.Close)
	cl := startCluster(t, 3)
	c := cl.client()
	s, _, err := c.Submit(background(t), client.Submission{Spec: spec(2, 1), Notify: &trial.Notification{URL: web.URL + "/hook-secret"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Control(background(t), client.NewRequestID(), s.ID, trial.ActionCancel); err != nil {
		t.Fatal(err)
	}
	state := func() *trial.Notification {
		now, err := c.Sweep(background(t), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		return now.Notify
	}
	until(t, "an attempt is written down", func() bool { return state().Attempts > 0 })
	before := state().Attempts
	cl.leader().crash(t)
	works.Store(true)
	until(t, "the next leader posts it", func() bool { return state().Done })
	if n := state(); n.Error != "" || n.Attempts <= before || n.URL != web.URL {
		t.Errorf("after the crash %+v; %d attempts before", n, before)
	}
	delivered := posts.Load()
	time.Sleep(400 * time.Millisecond)
	if n := posts.Load(); n != delivered {
		t.Errorf("it was posted %d times more after it was delivered", n-delivered)
	}
	for _, n := range cl.nodes {
		if strings.Contains(n.log.String(), "hook-secret") {
			t.Errorf("the log of %s names the secret", n.Config.ID)
		}
	}
}
