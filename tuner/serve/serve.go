// Package serve is the web app: a page on which people drop an image and see
// what a model makes of it, and the same as JSON. It keeps the limits and finds
// the models; a trainer in a process of its own answers. It stores no images.
package serve

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"atelier/common/webguard"
)

//go:embed page
var page embed.FS

// Limits of one server.
type Limits struct {
	Bytes       int64         // of an image's file
	Pixels      int64         // that it claims to have
	Concurrency int           // requests answered or waiting for the model
	Timeout     time.Duration // of one request
}

// DefaultLimits hold a phone's largest photograph.
func DefaultLimits() Limits {
	return Limits{Bytes: 20 << 20, Pixels: 50_000_000, Concurrency: 64, Timeout: 30 * time.Second}
}

// Asker answers for a checkpoint on this machine; the Oracle does.
type Asker interface {
	Predict(ctx context.Context, checkpoint string, top int, upload []byte) (status int, answer []byte, err error)
	Ready() error
}

// Server answers the routes of the web app.
type Server struct {
	asker   Asker
	sources []Source
	limits  Limits
	log     *slog.Logger
	slots   chan struct{}
}

// Again is the command that prints another login link.
const Again = "atelier serve --link"

// New makes the handler of the web app behind a guard, which knows the server's names and its token.
func New(asker Asker, sources []Source, limits Limits, guard webguard.Config, log *slog.Logger) (*webguard.Guard, error) {
	s := &Server{asker: asker, sources: sources, limits: limits, log: log, slots: make(chan struct{}, limits.Concurrency)}
	guard.Title, guard.Again = "Atelier", Again
	return webguard.New(guard, s.routes())
}

// routes are all that the web app answers, besides signing in and out: nothing is registered elsewhere.
func (s *Server) routes() []webguard.Route {
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the files are in the program
	}
	return []webguard.Route{
		{Pattern: "GET /", Access: webguard.Signed, Page: true, Handler: pages(files)},
		{Pattern: "GET /api/checkpoints", Access: webguard.Signed, Handler: s.checkpoints},
		{Pattern: "POST /api/predict", Access: webguard.Signed, Body: s.limits.Bytes + formBytes, Handler: s.predict},
		{Pattern: "GET /healthz", Access: webguard.Public, Handler: s.health},
	}
}

// pages serves the page's files, and an error page for any other path; below
// /api/ programs ask, which read JSON.
func pages(files fs.FS) http.HandlerFunc {
	there := http.FileServerFS(files)
	missing, err := fs.ReadFile(files, "404.html")
	if err != nil {
		panic(err) // it is in the program
	}
	return func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if info, err := fs.Stat(files, name); r.URL.Path == "/" || err == nil && !info.IsDir() {
			there.ServeHTTP(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			webguard.Refuse(w, http.StatusNotFound, "there is no %s; there are GET /api/checkpoints and POST /api/predict", r.URL.Path)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		w.Write(missing)
	}
}

// health is 503 while the trainer starts.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if err := s.asker.Ready(); err != nil {
		webguard.Refuse(w, http.StatusServiceUnavailable, "%s", err)
		return
	}
	webguard.Send(w, http.StatusOK, map[string]string{"status": "ok"})
}

// checkpoints lists what may be asked. A source that fails is a problem beside what
// the others found.
func (s *Server) checkpoints(w http.ResponseWriter, r *http.Request) {
	answer := struct {
		Checkpoints []Entry  `json:"checkpoints"`
		Problems    []string `json:"problems,omitempty"`
	}{}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.Timeout)
	defer cancel()
	answer.Checkpoints, answer.Problems = s.list(ctx)
	webguard.Send(w, http.StatusOK, answer)
}

// predict answers about one image. Places are limited and nobody queues here: whoever finds none is told at once
// to come again. What costs little is checked before the model is asked.
func (s *Server) predict(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		webguard.Refuse(w, http.StatusServiceUnavailable, "%d images are waiting already; send it again in a moment", s.limits.Concurrency)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.Timeout)
	defer cancel()
	top := 5
	if text := r.URL.Query().Get("top_k"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			webguard.Refuse(w, http.StatusBadRequest, "top_k=%s: want a number from 1 to 100", text)
			return
		}
		top = n
	}
	name, upload, err := s.upload(r)
	if err == nil {
		err = s.check(name, upload)
	}
	if why := new(refusal); errors.As(err, &why) {
		w.Header().Set("Connection", "close") // what it may still send is not read
		webguard.Refuse(w, why.status, "%s", why.text)
		return
	}
	file, err := s.find(ctx, r.URL.Query().Get("checkpoint"))
	if err != nil {
		webguard.Refuse(w, http.StatusNotFound, "%s", err)
		return
	}
	status, answer, err := s.asker.Predict(ctx, file, top, upload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		webguard.Refuse(w, http.StatusGatewayTimeout, "the model did not answer within %s; the machine may be busy", s.limits.Timeout)
	case err != nil:
		s.log.Error("ask the model", "error", err)
		webguard.Refuse(w, http.StatusBadGateway, "%s", err)
	case status == http.StatusUnprocessableEntity: // the child's decoder found what a header does not show
		var said struct{ Error string }
		json.Unmarshal(answer, &said)
		webguard.Refuse(w, status, "%s cannot be read: %s", name, said.Error)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(answer)
	}
}
