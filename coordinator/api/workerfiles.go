package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"
	"atelier/common/trial"
)

// In a closed cluster workers answer members alone. People and programs read the files and logs of workers, and send
// models to them, through the coordinators: PREFIX HOST:PORT and the path of the worker's file server. Only workers that
// the leader knows are asked, and only a worker of that name with a certificate of this cluster is shown the request.

// logsPath is what a worker's file server serves its logs below.
const logsPath = "/logs/"

// newWorkerTransport connects to the file servers of workers.
func (s *Server) newWorkerTransport() *http.Transport {
	return &http.Transport{
		DialTLSContext:        s.dialWorker,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 2 * time.Minute, // of a file that was sent: it is checked first
		DisableCompression:    true,
	}
}

// workerAt is the name of the worker at an address, "" where the leader knows none there.
func (s *Server) workerAt(addr string) (string, error) {
	list, err := s.cfg.Assign.Workers()
	if err != nil {
		return "", err
	}
	name := ""
	for _, w := range list {
		if w.Address == addr && (name == "" || w.State != "lost") { // an address may have gone to another one
			name = w.Name
		}
	}
	return name, nil
}

// dialWorker connects to the worker that is known at an address, and no other.
func (s *Server) dialWorker(ctx context.Context, network, addr string) (net.Conn, error) {
	name, err := s.workerAt(addr)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}, Config: s.cfg.Identity.ClientTLS(identity.Node(identity.Worker, name))}
	return d.DialContext(ctx, network, addr)
}

// workerFile hands a request on to a worker, and its answer back.
func (s *Server) workerFile() http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport:     s.newWorkerTransport(),
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		Rewrite: func(p *httputil.ProxyRequest) {
			addr, rest, _ := splitWorkerPath(p.In.URL.Path)
			p.Out.URL = &url.URL{Scheme: "https", Host: addr, Path: rest}
			p.Out.Host = ""
			kept := http.Header{} // whoever asks, its credential stays here
			for _, k := range []string{"Range", "If-Range", client.SumHeader, "Content-Type"} {
				if v := p.In.Header.Get(k); v != "" {
					kept.Set(k, v)
				}
			}
			p.Out.Header = kept
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			addr, _, _ := splitWorkerPath(r.URL.Path)
			http.Error(w, fmt.Sprintf("the worker at %s does not answer: %v", addr, identity.Explain(err)), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Identity == nil {
			http.Error(w, "this cluster is open: workers answer everybody themselves", http.StatusNotFound)
			return
		}
		addr, rest, ok := splitWorkerPath(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		switch r.Method {
		case http.MethodGet, http.MethodHead, http.MethodPut:
		default:
			w.Header().Set("Allow", "GET, HEAD, PUT")
			http.Error(w, "only GET, HEAD and PUT", http.StatusMethodNotAllowed)
			return
		}
		if err := reaches(callerOf(r.Context()), rest); err != nil {
			s.Refused(callerOf(r.Context()).String(), "worker-files", err.Error())
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		name, err := s.workerAt(addr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if name == "" {
			http.Error(w, fmt.Sprintf("no worker of this cluster is known at %s", addr), http.StatusBadGateway)
			return
		}
		proxy.ServeHTTP(w, r)
	})
}

// splitWorkerPath takes a path apart: the worker's address and the path there, which is of a checkpoint or a log.
func splitWorkerPath(full string) (addr, rest string, ok bool) {
	addr, rest, ok = strings.Cut(strings.TrimPrefix(full, client.WorkerFilesPath), "/")
	rest = "/" + rest
	host, port, err := net.SplitHostPort(addr)
	ok = ok && err == nil && host != "" && port != "" && rest == path.Clean(rest)
	return addr, rest, ok && (strings.HasPrefix(rest, trial.FilesPath) || strings.HasPrefix(rest, logsPath))
}

// reaches says why a caller may not ask for a file: a trial reaches its own alone.
func reaches(c access.Caller, rest string) error {
	if c.Role != access.Trial {
		return nil
	}
	own := fmt.Sprintf("%s/%d/", c.Sweep, c.Trial)
	if strings.HasPrefix(rest, trial.FilesPath+own) || strings.HasPrefix(rest, logsPath+own) {
		return nil
	}
	return errors.New("this credential is for the files of one trial alone, and this is not one of them")
}
