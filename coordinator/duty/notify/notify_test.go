package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/duty/notify"
	"atelier/coordinator/state"
)

// log applies what is proposed, and tells the duties.
type log struct {
	mu     sync.Mutex
	m      *state.Machine
	duties []*notify.Notifier
}

func (l *log) Propose(_ context.Context, c *logv1.Command) (state.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Rules = state.Rules
	r := l.m.Apply(l.m.View().Index()+1, &logv1.Entry{Commands: []*logv1.Command{c}})[0]
	for _, d := range l.duties {
		d.Changed(r.Changes)
	}
	return r, nil
}

func (l *log) do(t *testing.T, ms int64, c *logv1.Command) {
	t.Helper()
	c.TimeMs = ms
	if r, err := l.Propose(t.Context(), c); err != nil || r.Err != nil {
		t.Fatal(err, r.Err)
	}
}

// scene is a state with a sweep s-a whose end is to be posted to a server.
func scene(t *testing.T, url string, on ...trial.SweepStatus) *log {
	l := &log{m: state.New()}
	l.do(t, 1000, &logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-a", Name: "a <!channel> & b", BudgetTrials: 2, Parallelism: 2,
		Objective: wire.ToObjective(trial.Objective{Metric: "val_loss"}), Notify: wire.ToNotification(&trial.Notification{URL: url, On: on})}}})
	return l
}

func (l *log) cancel(t *testing.T) {
	t.Helper()
	l.do(t, 5000, &logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: "s-a", Action: wire.ToAction(trial.ActionCancel)}}})
}

func (l *log) duty(pauses ...time.Duration) *notify.Notifier {
	n := notify.New(notify.Config{Log: l, View: l.m.View, NowMS: func() int64 { return time.Now().UnixMilli() }, Pauses: pauses, Logger: slog.New(slog.DiscardHandler)})
	l.mu.Lock()
	l.duties = append(l.duties, n)
	l.mu.Unlock()
	return n
}

func (l *log) notification() trial.Notification {
	s, _ := l.m.View().Sweep("s-a")
	return *s.Notification
}

// server keeps what was posted and answers as told, the last answer from then on.
type server struct {
	*httptest.Server
	mu     sync.Mutex
	bodies []string
	codes  []int
}

func serve(t *testing.T, codes ...int) *server {
	s := &server{codes: codes}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s with %s", r.Method, r.Header.Get("Content-Type"))
		}
		s.bodies = append(s.bodies, string(b))
		code := s.codes[0]
		if len(s.codes) > 1 {
			s.codes = s.codes[1:]
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) posted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.bodies...)
}

// TestPostedUntilItIsTaken: failures are repeated, the second leader goes on where the
// first one was, and nothing is posted once it was delivered.
func TestPostedUntilItIsTaken(t *testing.T) {
	web := serve(t, 500, 503, 204)
	l := scene(t, web.URL+"/hook/secret")
	first := l.duty(time.Millisecond, time.Hour)
	first.Start()
	l.cancel(t)
	coordinatortest.Until(t, "two attempts", func() bool { return l.notification().Attempts == 2 })
	first.Stop()
	if n := l.notification(); n.Done || n.Error != "answered 503 Service Unavailable" {
		t.Errorf("after two attempts %+v", n)
	}
	next := l.duty(time.Millisecond, time.Millisecond)
	next.Start()
	coordinatortest.Until(t, "it is delivered", func() bool { return l.notification().Done })
	next.Stop()
	third := l.duty(time.Millisecond)
	third.Start()
	time.Sleep(30 * time.Millisecond)
	third.Stop()
	if n := l.notification(); n.Attempts != 3 || n.Error != "" || n.EndMS != 5000 {
		t.Errorf("in the end %+v", n)
	}
	bodies := web.posted()
	if len(bodies) != 3 || bodies[0] != bodies[2] {
		t.Fatalf("posted %q", bodies)
	}
	var doc struct {
		Text, Event, Delivery, Sweep, Name, State string
		Best                                      any
	}
	if err := json.Unmarshal([]byte(bodies[0]), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Text != "Sweep a &lt;!channel&gt; &amp; b (s-a) was cancelled; 0 of 0 trials ended" || doc.Event != "sweep.cancelled" || doc.Delivery != "s-a-5000" || doc.Sweep != "s-a" || doc.Name != "a <!channel> & b" || doc.State != "cancelled" || doc.Best != nil {
		t.Errorf("posted %+v", doc)
	}
}

func TestGivenUp(t *testing.T) {
	web := serve(t, 404)
	l := scene(t, web.URL)
	n := l.duty(time.Millisecond, time.Millisecond)
	n.Start()
	defer n.Stop()
	l.cancel(t)
	coordinatortest.Until(t, "it is given up", func() bool { return l.notification().Done })
	time.Sleep(20 * time.Millisecond)
	if got := l.notification(); got.Attempts != 3 || got.Error != "answered 404 Not Found" || len(web.posted()) != 3 {
		t.Errorf("%+v after %d posts", got, len(web.posted()))
	}
}

func TestOnlyEndsAskedFor(t *testing.T) {
	web := serve(t, 200)
	l := scene(t, web.URL, trial.SweepFailed)
	n := l.duty(time.Millisecond)
	n.Start()
	defer n.Stop()
	l.cancel(t)
	time.Sleep(30 * time.Millisecond)
	if p := web.posted(); len(p) != 0 {
		t.Errorf("posted %q", p)
	}
}

// TestPost: what is refused, and that no error names more than the host.
func TestPost(t *testing.T) {
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer other.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/secret/away":
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		case "/secret/endless":
			for range 1 << 20 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		case "/secret/broken":
			c, _, _ := w.(http.Hijacker).Hijack()
			c.Close()
		}
	}))
	defer web.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	for name, x := range map[string]struct{ url, want string }{
		"taken":        {web.URL + "/secret/ok", ""},
		"endless":      {web.URL + "/secret/endless", ""},
		"redirect":     {web.URL + "/secret/away", "answered 307 Temporary Redirect: redirects are not followed"},
		"broken":       {web.URL + "/secret/broken", "EOF"},
		"nobody":       {closed.URL + "/secret/x?y=secret", "connection refused"},
		"no such host": {"http://user:secret@nobody.invalid/secret", "nobody.invalid"},
		"metadata":     {"http://169.254.169.254/latest/secret", "a link-local address"},
		"mapped":       {"http://[::ffff:169.254.169.254]/secret", "a link-local address"},
		"link-local":   {"http://[fe80::1]/secret", "a link-local address"},
		"google":       {"http://Metadata.google.internal./secret", "metadata service"},
		"alibaba":      {"http://100.100.100.200/secret", "metadata service"},
		"nothing":      {"http://0.0.0.0/secret", "not the address of a machine"},
		"decimal":      {"http://2852039166/secret", ""},
		"scheme":       {"file:///secret", "http:// or https://"},
		"none":         {"https:///secret", "no host"},
		"not a URL":    {"http://a b/secret%zz", "not a URL"},
		"fragment":     {"http://h/x#secret", "a fragment"},
	} {
		err := notify.Post(t.Context(), x.url, []byte("{}"))
		switch {
		case name == "decimal": // some resolvers take it for 169.254.169.254
			if err == nil {
				t.Error("the metadata address in another spelling was taken")
			}
		case (err == nil) != (x.want == ""):
			t.Errorf("%s: %v", name, err)
		case err != nil && !strings.Contains(err.Error(), x.want):
			t.Errorf("%s: %v, want %s", name, err, x.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error names what may be secret: %v", name, err)
		}
	}
	if reached.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// FuzzCheckURL: what is taken can be asked, and no text names path, query or password.
func FuzzCheckURL(f *testing.F) {
	for _, u := range []string{"https://hooks.slack.com/services/T0/B0/x", "http://a:b@c:8080?d=e", "http://[::1]:9/x", "http://%31/", "http://h/\x00", "HTTP://H"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		err := notify.CheckURL(u)
		if host := trial.HookHost(u); strings.ContainsAny(strings.TrimPrefix(strings.TrimPrefix(host, "http://"), "https://"), "/?#@") && err == nil {
			t.Errorf("%q is shown as %q", u, host)
		}
		secret := "Zq9secretXw7"
		if err := notify.CheckURL(fmt.Sprintf("%s/%s?%s", u, secret, secret)); err != nil && strings.Contains(err.Error(), secret) && !strings.Contains(u, "//") {
			t.Errorf("%q: %v", u, err)
		}
	})
}

// An answer that does not come ends with the leadership, and is not written down.
func TestStopsAtOnce(t *testing.T) {
	began := make(chan struct{}, 1)
	l := scene(t, "http://127.0.0.1:1")
	n := notify.New(notify.Config{Log: l, View: l.m.View, NowMS: func() int64 { return 6000 }, Logger: slog.New(slog.DiscardHandler),
		Post: func(ctx context.Context, _ string, _ []byte) error {
			began <- struct{}{}
			<-ctx.Done()
			return errors.New("cut off")
		}})
	l.cancel(t)
	n.Start()
	<-began
	n.Stop()
	if got := l.notification(); got.Attempts != 0 {
		t.Errorf("an attempt that was broken off was written down: %+v", got)
	}
}

// TestCorrectedAddress: an address that replaces one whose server is slow is posted to
// without waiting for that server, and the late answer does not count for it.
func TestCorrectedAddress(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	defer slow.Close()
	right := serve(t, 500, 204)
	l := scene(t, slow.URL)
	d := l.duty(time.Millisecond, time.Hour)
	d.Start()
	defer d.Stop()
	l.cancel(t)
	<-asked
	l.do(t, 6000, &logv1.Command{Rules: state.Rules, Op: &logv1.Command_SetNotification{SetNotification: &logv1.SetNotification{Id: "s-a", Url: right.URL}}})
	coordinatortest.Until(t, "the right address is delivered to", func() bool { return l.notification().Done })
	close(answer)
	if n := l.notification(); n.URL != right.URL || n.Error != "" || n.Attempts != 2 || len(right.posted()) != 2 {
		t.Errorf("%+v after %d posts", n, len(right.posted()))
	}
}

// TestLateAnswer: the answer of the address before comes while the new one is to be posted to
// again.
func TestLateAnswer(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	var requests atomic.Int32
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		asked <- struct{}{}
		<-answer
	}))
	defer slow.Close()
	l := scene(t, slow.URL)
	d := l.duty(300*time.Millisecond, time.Hour)
	d.Start()
	l.cancel(t)
	<-asked
	l.do(t, 6000, &logv1.Command{Rules: state.Rules, Op: &logv1.Command_SetNotification{SetNotification: &logv1.SetNotification{Id: "s-a", Url: "http://127.0.0.1:1/gone"}}})
	coordinatortest.Until(t, "the new address was tried", func() bool { return l.notification().Attempts > 0 })
	close(answer)
	time.Sleep(50 * time.Millisecond)
	d.Stop()
	if n := l.notification(); n.Done || n.Error == "" {
		t.Errorf("%+v", n)
	}
}
