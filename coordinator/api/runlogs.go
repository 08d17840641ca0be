package api

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/coordinator/runlogs"
)

// dropEvery bounds how often the logs of deleted sweeps are looked for.
const dropEvery = time.Minute

// runLog keeps (PUT) and gives (GET) the end of a run's log, on this node alone:
// neither goes to the leader, and neither is in the replicated state.
func (s *Server) runLog(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, client.RunLogPath), "/")
	if len(parts) != 3 {
		http.NotFound(w, r)
		return
	}
	number, err := strconv.ParseInt(parts[1], 10, 64)
	run, err2 := strconv.ParseInt(parts[2], 10, 32)
	if err != nil || err2 != nil {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodGet:
		text, at, err := s.cfg.RunLogs.Get(parts[0], number, int32(run))
		if errors.Is(err, runlogs.ErrNone) {
			http.NotFound(w, r)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set(client.RunLogTime, strconv.FormatInt(at.UnixMilli(), 10))
		w.Write(text)
	case http.MethodPut:
		s.keepRunLog(w, r, parts[0], number, int32(run))
	default:
		w.Header().Set("Allow", "GET, PUT")
		http.Error(w, "only GET and PUT", http.StatusMethodNotAllowed)
	}
}

// keepRunLog takes a log of a trial that this node's state knows.
func (s *Server) keepRunLog(w http.ResponseWriter, r *http.Request, sweep string, number int64, run int32) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, trial.KeptLog))
	if err != nil {
		http.Error(w, "the end of a log has at most 64 KiB", http.StatusRequestEntityTooLarge)
		return
	}
	view := s.cfg.View()
	known, err := find(view, sweep)
	if err != nil || known.Trial(number) == nil {
		http.Error(w, "no such trial here", http.StatusNotFound)
		return
	}
	if room := s.cfg.Cluster.Stats().Room; room.Full() {
		http.Error(w, room.String(), http.StatusInsufficientStorage)
		return
	}
	if now := s.now(); now-s.dropped.Load() > dropEvery.Milliseconds() {
		s.dropped.Store(now)
		s.cfg.RunLogs.DropIf(func(id string) bool { _, gone := view.Purged(id); return gone })
	}
	if err := s.cfg.RunLogs.Put(sweep, number, run, text); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
