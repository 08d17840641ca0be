// Package serve is the web app: a page on which people drop an image and see
// what a model makes of it, and the same as JSON. It keeps the limits and finds
// the models; a trainer in a process of its own answers. It stores no images.
package serve

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"atelier/common/dataset"
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

// Server is the web app's handler.
type Server struct {
	asker   Asker
	sources []Source
	limits  Limits
	log     *slog.Logger
	slots   chan struct{}
	local   bool // bound to a loopback address
	mux     *http.ServeMux
}

// New makes a handler. local tells that it is bound to a loopback address.
func New(asker Asker, sources []Source, limits Limits, local bool, log *slog.Logger) *Server {
	s := &Server{asker: asker, sources: sources, limits: limits, log: log, local: local, slots: make(chan struct{}, limits.Concurrency), mux: http.NewServeMux()}
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the files are in the program
	}
	s.mux.Handle("GET /", pages(files))
	s.mux.HandleFunc("GET /api/checkpoints", s.checkpoints)
	s.mux.HandleFunc("POST /api/predict", s.predict)
	s.mux.HandleFunc("GET /healthz", s.health)
	return s
}

// pages serves the page's files, and an error page for any other path; below
// /api/ programs ask, which read JSON.
func pages(files fs.FS) http.Handler {
	there := http.FileServerFS(files)
	missing, err := fs.ReadFile(files, "404.html")
	if err != nil {
		panic(err) // it is in the program
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if info, err := fs.Stat(files, name); r.URL.Path == "/" || err == nil && !info.IsDir() {
			there.ServeHTTP(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/") {
			refuse(w, http.StatusNotFound, "there is no %s; there are GET /api/checkpoints and POST /api/predict", r.URL.Path)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.WriteHeader(http.StatusNotFound)
		w.Write(missing)
	})
}

// ServeHTTP guards all paths alike.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	if s.local && !loopback(r.Host) {
		refuse(w, http.StatusForbidden, "this server is asked for as %s; it answers to 127.0.0.1 and localhost only", r.Host)
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "null" {
		if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
			refuse(w, http.StatusForbidden, "requests from the page of another site (%s) are not answered", origin)
			return
		}
	}
	s.mux.ServeHTTP(w, r)
}

// loopback reports whether an address is this machine's alone.
func loopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// health is 503 while the trainer starts.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if err := s.asker.Ready(); err != nil {
		refuse(w, http.StatusServiceUnavailable, "%s", err)
		return
	}
	send(w, http.StatusOK, map[string]string{"status": "ok"})
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
	send(w, http.StatusOK, answer)
}

// predict answers about one image. Places are limited and nobody queues here: whoever finds none is told at once
// to come again. What costs little is checked before the model is asked.
func (s *Server) predict(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "%d images are waiting already; send it again in a moment", s.limits.Concurrency)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.Timeout)
	defer cancel()
	top := 5
	if text := r.URL.Query().Get("top_k"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 100 {
			refuse(w, http.StatusBadRequest, "top_k=%s: want a number from 1 to 100", text)
			return
		}
		top = n
	}
	name, upload, err := s.upload(w, r)
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, "the image is larger than %d MB", s.limits.Bytes>>20)
			return
		}
		refuse(w, http.StatusBadRequest, "%s", err)
		return
	}
	if status, err := s.check(name, upload); err != nil {
		refuse(w, status, "%s", err)
		return
	}
	file, err := s.find(ctx, r.URL.Query().Get("checkpoint"))
	if err != nil {
		refuse(w, http.StatusNotFound, "%s", err)
		return
	}
	status, answer, err := s.asker.Predict(ctx, file, top, upload)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusGatewayTimeout, "the model did not answer within %s; the machine may be busy", s.limits.Timeout)
	case err != nil:
		s.log.Error("ask the model", "error", err)
		refuse(w, http.StatusBadGateway, "%s", err)
	case status == http.StatusUnprocessableEntity: // the child's decoder found what a header does not show
		var said struct{ Error string }
		json.Unmarshal(answer, &said)
		refuse(w, status, "%s cannot be read: %s", name, said.Error)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(answer)
	}
}

// upload reads the request's image, whether it is the body or a form's field.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) (name string, b []byte, err error) {
	name = "the image"
	body := http.MaxBytesReader(w, r.Body, s.limits.Bytes+1<<16) // a form adds its own lines
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	in := io.Reader(body)
	if kind == "multipart/form-data" {
		r.Body = body
		parts, err := r.MultipartReader()
		if err != nil {
			return name, nil, err
		}
		for {
			part, err := parts.NextPart()
			if errors.Is(err, io.EOF) {
				return name, nil, errors.New("the form has no field \"image\"")
			}
			if err != nil {
				return name, nil, err
			}
			if part.FormName() == "image" {
				if n := path.Base(strings.ReplaceAll(part.FileName(), `\`, "/")); part.FileName() != "" {
					name = n
				}
				in = part
				break
			}
		}
	}
	b, err = io.ReadAll(io.LimitReader(in, s.limits.Bytes+1))
	if err == nil && int64(len(b)) > s.limits.Bytes {
		err = &http.MaxBytesError{Limit: s.limits.Bytes}
	}
	if err == nil && len(b) == 0 {
		err = errors.New("the request has no image")
	}
	return name, b, err
}

// check looks at an image's first bytes only: nothing is decoded before its
// size is known to be sane. What `atelier infer` decodes is taken here.
func (s *Server) check(name string, b []byte) (status int, err error) {
	width, height, format, err := dataset.Header(b)
	if format == "" {
		what := "file of an unknown kind"
		if kind := http.DetectContentType(b); strings.HasPrefix(kind, "text/") {
			what = "text file"
		} else if kind != "application/octet-stream" {
			what = kind + " file"
		}
		return http.StatusUnsupportedMediaType, fmt.Errorf("%s is a %s: send a PNG, JPEG, GIF, WebP, BMP or TIFF image", name, what)
	}
	if err != nil {
		return http.StatusUnprocessableEntity, fmt.Errorf("%s begins as a %s but cannot be read: %s", name, strings.ToUpper(format), strings.TrimPrefix(err.Error(), format+": "))
	}
	if pixels := int64(width) * int64(height); pixels > s.limits.Pixels {
		return http.StatusRequestEntityTooLarge, fmt.Errorf("%s claims %d x %d pixels; up to %d million are read", name, width, height, s.limits.Pixels/1_000_000)
	}
	return 0, nil
}

// refuse answers {"error": TEXT}.
func refuse(w http.ResponseWriter, status int, format string, a ...any) {
	send(w, status, map[string]string{"error": fmt.Sprintf(format, a...)})
}

// send answers JSON.
func send(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(b)
}
