package mlflow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"atelier/common/secret"
	"atelier/common/version"
)

// restStore is a tracking server. What a call may do when it is sent twice decides who may repeat it:
//
//	get, search, get-history, list    read: repeated freely
//	experiments/create                the second is answered RESOURCE_ALREADY_EXISTS, which is as good
//	runs/update, artifact             set a value: repeated freely
//	runs/log-batch                    parameters and tags are set; metrics are appended, so that after
//	                                  an uncertain answer their history is read first (missing)
//	runs/create                       makes another run, so that after an uncertain answer a run with
//	                                  our identity is searched for first (create)
//
// The server has no request ids by which it could tell a repetition itself.
type restStore struct {
	base   *url.URL // without credentials
	o      Options
	client *http.Client
	auth   func(*http.Request)
	secret []secret.Text // never shown
	folder string        // of this server's journals
	turns  chan struct{} // runs that speak to the server at once

	mu          sync.Mutex
	runs        []*Run
	senders     map[string]*sender // by identity
	adopted     []*sender
	experiments map[string]string // ids by name
}

// openREST asks nothing of the server: a training may begin while it is down. Credentials are cut off the
// address, for it is shown and hashed. What ended programs left for this server begins to be sent.
func openREST(uri string, o Options) (Store, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, errors.New("MLflow: the tracking URI is not an address; give for example http://127.0.0.1:5000")
	}
	s := &restStore{o: o, turns: make(chan struct{}, 8), senders: map[string]*sender{}, experiments: map[string]string{}}
	who, err := findCredentials(u.User, o.Password)
	if err != nil {
		return nil, err
	}
	u.User = nil
	s.auth, s.secret = who.sign, who.secrets()
	u.RawQuery, u.Fragment = "", ""
	u.Path = strings.TrimRight(u.Path, "/")
	s.base = u
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 8
	if transport.TLSClientConfig, err = tlsConfig(); err != nil {
		return nil, err
	}
	// A redirected POST would come as a GET, and credentials would travel on.
	s.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if s.folder, err = bufferFolder(o, s.base.String()); err != nil {
		return nil, err
	}
	s.adopt()
	return s, nil
}

// tlsConfig obeys MLflow's variables for servers with certificates of their own.
func tlsConfig() (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: os.Getenv("MLFLOW_TRACKING_INSECURE_TLS") == "true"} // the person's own wish
	if file := os.Getenv("MLFLOW_TRACKING_SERVER_CERT_PATH"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("MLflow: MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("MLflow: MLFLOW_TRACKING_SERVER_CERT_PATH: no certificate in %s", file)
		}
	}
	return c, nil
}

// bufferFolder is where this server's journals lie: by a digest of its address, which is no file name. It
// is in the person's state folder, not beside the results: whichever program speaks to the server next
// finds what is left.
func bufferFolder(o Options, store string) (string, error) {
	dir := o.Buffer
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", fmt.Errorf("MLflow: no place for the buffer: %w", err)
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "atelier", "mlflow")
	} else if !filepath.IsAbs(dir) {
		dir = filepath.Join(o.Dir, dir)
	}
	sum := sha256.Sum256([]byte(store))
	return filepath.Join(dir, hex.EncodeToString(sum[:8])), nil
}

// String is the address without credentials.
func (s *restStore) String() string { return s.base.String() }

// Hint leads to the experiment's page where the program used one, else to the server's.
func (s *restStore) Hint() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.experiments) == 1 {
		for _, id := range s.experiments {
			return []string{"open " + s.base.String() + "/#/experiments/" + id}
		}
	}
	return []string{"open " + s.base.String()}
}

// callError is a call that brought no good answer.
type callError struct {
	call    string
	status  int    // of HTTP; 0 = no answer
	code    string // of MLflow
	message string
	unsent  bool // the request never left: nothing can have come of it
	cause   error
}

// Error names the call, not the server: whoever adds the server's name does so once.
func (e *callError) Error() string {
	switch {
	case e.cause != nil:
		return fmt.Sprintf("%s: %v", e.call, e.cause)
	case e.code != "":
		return fmt.Sprintf("%s: %s: %s", e.call, e.code, e.message)
	}
	return fmt.Sprintf("%s: HTTP %d: %s", e.call, e.status, e.message)
}

// Unwrap tells callers whether the thing is missing or the server out of reach; other
// refusals are neither.
func (e *callError) Unwrap() error {
	switch {
	case e.code == "RESOURCE_DOES_NOT_EXIST":
		return ErrNotFound
	case e.cause != nil && e.status == 0:
		return errors.Join(ErrUnreachable, e.cause)
	case !e.refused():
		return ErrUnreachable
	}
	return nil
}

// refused reports whether the server understood the request and says it is wrong: sending it
// again would not help.
func (e *callError) refused() bool {
	if e.code == "" {
		return false // not MLflow's words: a proxy, a login page, a wrong address
	}
	switch e.status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return e.code != "TEMPORARILY_UNAVAILABLE" && e.code != "REQUEST_LIMIT_EXCEEDED" && e.code != "INTERNAL_ERROR"
	}
	return false
}

// refused reports whether the server has said that the request itself is wrong.
func refused(err error) bool {
	var e *callError
	return errors.As(err, &e) && e.refused()
}

// unsent reports whether the request cannot have reached the server. Only a connection that was
// never made is proof: one that broke later may have broken after the server had acted.
func unsent(err error) bool {
	var e *callError
	return errors.As(err, &e) && e.unsent
}

// code is MLflow's error_code, "" where the answer was not MLflow's.
func code(err error) string {
	var e *callError
	if errors.As(err, &e) {
		return e.code
	}
	return ""
}

// redact takes credentials out of what other people's text may repeat.
func (s *restStore) redact(text string) string { return secret.Redact(text, s.secret...) }

// maxAnswer bounds an answer: a page of 25,000 values of a metric is 3 MB.
const maxAnswer = 64 << 20

// call makes one call of the API. in is the body of a POST, or nil for a GET.
func (s *restStore) call(ctx context.Context, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("MLflow: %s: %w", path, err)
		}
		method, body = http.MethodPost, bytes.NewReader(b)
	}
	u := *s.base
	u.Path += "/api/2.0/mlflow/" + path
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return fmt.Errorf("MLflow: %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	return s.do(req, path, true, out)
}

// do sends a request of ours; to the tracking server itself with credentials, which are nobody else's: an
// artifact may go to another host. Every error is a *callError.
func (s *restStore) do(req *http.Request, call string, credentials bool, out any) error {
	req.Header.Set("User-Agent", "atelier/"+version.Version)
	if credentials {
		s.auth(req)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var op *net.OpError
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address, which is said already
		}
		err = secret.RedactError(err, s.secret...) // it may quote the answer
		return &callError{call: call, cause: err, unsent: errors.As(err, &op) && op.Op == "dial"}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &callError{call: call, status: resp.StatusCode, cause: fmt.Errorf("the answer broke off: %w", err)}
	}
	if resp.StatusCode == http.StatusOK {
		if out == nil {
			out = &struct{}{}
		}
		if err := json.Unmarshal(b, out); err != nil {
			return &callError{call: call, status: resp.StatusCode, message: "the answer is not MLflow's: " + cut(s.redact(strings.Join(strings.Fields(string(b)), " ")), 80)}
		}
		return nil
	}
	return s.failure(call, resp, b)
}

// failure makes an error of an answer that is not 200. Wrong credentials and redirects lose
// MLflow's code on purpose: they are then no refusal of what was sent, and entries wait for the
// person to put it right instead of being dropped one by one.
func (s *restStore) failure(call string, resp *http.Response, b []byte) error {
	e := &callError{call: call, status: resp.StatusCode}
	var said struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(b, &said) == nil {
		e.code, e.message = said.Code, said.Message
	} else {
		e.message = strings.Join(strings.Fields(string(b)), " ")
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		e.code = ""
		e.message = "the server wants other credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or .._PASSWORD_FILE), or MLFLOW_TRACKING_TOKEN (or .._TOKEN_FILE)"
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		e.message = "the server sends us to another address; give that one as tracking URI"
	}
	e.message = cut(s.redact(e.message), 300) // in this order: half a secret would not be found
	return e
}

// ask repeats a call that changes nothing, or nothing twice: four tries, each wait twice the one before.
// It serves people who ask and wait; a sender calls once and repeats whole steps.
func (s *restStore) ask(ctx context.Context, path string, query url.Values, in, out any) error {
	wait := s.o.Backoff
	for try := 1; ; try++ {
		err := s.call(ctx, path, query, in, out)
		if err == nil || refused(err) || try == 4 || ctx.Err() != nil {
			return err
		}
		if !pause(ctx, wait) {
			return err
		}
		wait *= 2
	}
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
