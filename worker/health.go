package main

import (
	"fmt"
	"net/http"
	"sync/atomic"

	"atelier/worker/agent"
)

// health is /healthz: 200 while this worker works for its cluster, else 503 and
// why it does not.
type health struct {
	agent  atomic.Pointer[agent.Agent] // nil before it is known where the cluster is
	before atomic.Pointer[string]      // why there is none
}

// report says why there is no agent yet.
func (h *health) report(why string) { h.before.Store(&why) }

func (h *health) trouble() string {
	if a := h.agent.Load(); a != nil {
		return a.Trouble()
	}
	if why := h.before.Load(); why != nil {
		return *why
	}
	return "starting"
}

// ServeHTTP answers one question.
func (h *health) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if why := h.trouble(); why != "" {
		http.Error(w, why, http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
