package coordinatortest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// API is the generated clients of a coordinator or a cluster, with what tests ask of
// them again and again. Its methods end the test over an error.
type API struct {
	Sweeps  atelierv1connect.SweepServiceClient
	Trials  atelierv1connect.TrialServiceClient
	Workers atelierv1connect.WorkerServiceClient
	Cluster atelierv1connect.ClusterServiceClient
	Access  atelierv1connect.AccessServiceClient
	HTTP    *http.Client // that they use
}

// Dial returns clients of one address that repeat nothing.
func Dial(addr string) API {
	return dial("http://"+addr, http.DefaultClient)
}

func dial(url string, c *http.Client) API {
	return API{atelierv1connect.NewSweepServiceClient(c, url), atelierv1connect.NewTrialServiceClient(c, url), atelierv1connect.NewWorkerServiceClient(c, url),
		atelierv1connect.NewClusterServiceClient(c, url), atelierv1connect.NewAccessServiceClient(c, url), c}
}

// DialAs returns clients of the URL of a coordinator of a closed cluster, with a token; "" for none.
func DialAs(url string, secure *tls.Config, token string) API {
	return dial(url, &http.Client{Transport: &bearer{&http.Transport{TLSClientConfig: secure}, token}})
}

// bearer shows a token with each request.
type bearer struct {
	next  http.RoundTripper
	token string
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

// Call makes one call that must succeed.
func Call[Q, A any](t testing.TB, call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q) *A {
	t.Helper()
	r, err := call(Context(t), connect.NewRequest(q))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

// Refused makes one call that must fail with a code and a text, and returns the error.
func Refused[Q, A any](t testing.TB, what string, call func(context.Context, *connect.Request[Q]) (*connect.Response[A], error), q *Q, code connect.Code, text string) error {
	t.Helper()
	_, err := call(Context(t), connect.NewRequest(q))
	WantCode(t, what, err, code, text)
	return err
}

// WantCode compares the code of an error, and wants a text in it.
func WantCode(t testing.TB, what string, err error, code connect.Code, text string) {
	t.Helper()
	if connect.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want code %v and %q", what, err, code, text)
	}
}

// Context is one for a call that is to end within a minute.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Until waits until something is so; a minute at most, for machines that are busy.
func Until(t testing.TB, what string, want func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !want(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// Spec is one of random search for workers with simtrainer.
func Spec(trials, parallelism int) string {
	return fmt.Sprintf(`
name: test
search_method: random
seed: 7
objective: {metric: loss, direction: minimize}
budget: {trials: %d}
parallelism: %d
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0, log: true}
  depth: {type: int, low: 1, high: 5}
training: {epochs: 2}
`, trials, parallelism)
}

// ExternalSpec is one whose trials are asked for and told, and valued by Quality.
func ExternalSpec(method, budget string, parallelism int) string {
	return fmt.Sprintf(`
name: elsewhere
search_method: %s
seed: 5
objective: {metric: loss, direction: minimize}
budget: %s
parallelism: %d
trainer: external
space:
  x: {type: float, low: -1, high: 1}
  y: {type: float, low: -1, high: 1}
  k: {type: categorical, choices: [a, b, c]}
`, method, budget, parallelism)
}

// Quality is what programs that play an ExternalSpec measure: a function of the point.
func Quality(t testing.TB, params string) float64 {
	t.Helper()
	var x, y float64
	var k string
	if _, err := fmt.Sscanf(strings.NewReplacer("{", "", "}", "", ",", " ", `"`, "").Replace(params), "x:%g y:%g k:%1s", &x, &y, &k); err != nil {
		t.Fatalf("%s: %v", params, err)
	}
	return (x-0.3)*(x-0.3) + (y+0.2)*(y+0.2) + map[string]float64{"a": 0.3, "b": 0, "c": 0.1}[k]
}

// Create makes a sweep of a spec.
func (a API) Create(t testing.TB, text string) *atelierv1.Sweep {
	t.Helper()
	return Call(t, a.Sweeps.CreateSweep, &atelierv1.CreateSweepRequest{
		RequestId: "create-" + t.Name() + fmt.Sprint(time.Now().UnixNano()), SpecYaml: text, SpecName: "test.yaml", BaseDir: "/data",
	}).Sweep
}

// Sweep is a sweep as it is now.
func (a API) Sweep(t testing.TB, id string) *atelierv1.Sweep {
	t.Helper()
	return Call(t, a.Sweeps.GetSweep, &atelierv1.GetSweepRequest{Id: id}).Sweep
}

// Trial is a trial as it is now.
func (a API) Trial(t testing.TB, id string, n int64) *atelierv1.Trial {
	t.Helper()
	return Call(t, a.Trials.GetTrial, &atelierv1.GetTrialRequest{SweepId: id, Trial: n}).Trial
}

// TrialsOf are the first thousand trials of a sweep.
func (a API) TrialsOf(t testing.TB, id string) []*atelierv1.Trial {
	t.Helper()
	return Call(t, a.Trials.ListTrials, &atelierv1.ListTrialsRequest{SweepId: id}).Trials
}

// Verify computes the proposals of a sweep again.
func (a API) Verify(t testing.TB, id string) *atelierv1.VerifySweepResponse {
	t.Helper()
	return Call(t, a.Sweeps.VerifySweep, &atelierv1.VerifySweepRequest{Id: id, WaitMs: 30_000})
}

// Ask asks for a trial; its lease, nil for none, and the sweep's status.
func (a API) Ask(t testing.TB, sweep, request string, wait time.Duration) (*atelierv1.Lease, trial.SweepStatus) {
	t.Helper()
	r := Call(t, a.Trials.AskTrial, &atelierv1.AskTrialRequest{RequestId: request, SweepId: sweep, Name: "ada", TermMs: 60_000, WaitMs: wait.Milliseconds()})
	return r.Lease, wire.SweepStatus(r.Status)
}

// Tell tells of an epoch, where it is above 0, and of the end, where class is not 0.
func (a API) Tell(t testing.TB, l *atelierv1.Lease, epoch int32, value float64, class trial.Exit) *atelierv1.TellTrialResponse {
	t.Helper()
	req := &atelierv1.TellTrialRequest{SweepId: l.SweepId, Trial: l.Trial, Token: l.Token}
	if epoch > 0 {
		req.Report = Report(l, epoch, value).GetReport()
	}
	if class != 0 {
		req.Ended = &atelierv1.RunEnded{Exit: wire.ToExit(class)}
	}
	return Call(t, a.Trials.TellTrial, req)
}

// Play trains an external sweep with always the same number of trials open, ended in
// number order one by one, the next only when the place has been filled again: so that
// the order of results is the same every time. before is called ahead of each.
func (a API) Play(t testing.TB, id string, parallelism, budget int64, before func(done int64)) {
	t.Helper()
	held := map[int64]*atelierv1.Lease{}
	for done := int64(0); done < budget; done++ {
		before(done)
		for n := int64(len(held)); n < min(parallelism, budget-done); n++ {
			l, _ := a.Ask(t, id, fmt.Sprintf("%s-%d-%d", id, done, n), 20*time.Second)
			if l == nil {
				t.Fatalf("no trial after %d ended", done)
			}
			held[l.Trial] = l
		}
		l := held[done+1]
		if l == nil {
			t.Fatalf("trial %d was not given; held are %v", done+1, held)
		}
		a.Tell(t, l, 1, Quality(t, l.ParamsJson), trial.ExitFinished)
		delete(held, l.Trial)
	}
}

// SaveState is the file of the whole state.
func (a API) SaveState(t testing.TB) []byte {
	t.Helper()
	in, err := a.Cluster.SaveSnapshot(Context(t), connect.NewRequest(&atelierv1.SaveSnapshotRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var file bytes.Buffer
	for in.Receive() {
		file.Write(in.Msg().Data)
	}
	if err := in.Err(); err != nil || file.Len() == 0 {
		t.Fatalf("saved %d bytes: %v", file.Len(), err)
	}
	return file.Bytes()
}

// RestoreState puts a saved state in the place of the present one.
func (a API) RestoreState(t testing.TB, file []byte) (*atelierv1.RestoreSnapshotResponse, error) {
	return a.RestoreNamed(t, file, "")
}

// RestoreNamed is RestoreState under an id, so that one can ask what became of it.
func (a API) RestoreNamed(t testing.TB, file []byte, id string) (*atelierv1.RestoreSnapshotResponse, error) {
	out := a.Cluster.RestoreSnapshot(Context(t))
	for at := 0; at < len(file); at += 256 << 10 {
		if err := out.Send(&atelierv1.SnapshotChunk{Data: file[at:min(at+256<<10, len(file))], RestoreId: id}); err != nil {
			break
		}
	}
	resp, err := out.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}
