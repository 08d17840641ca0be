package train_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	"atelier/common/setting"
	"atelier/tuner/session"
	"atelier/tuner/train"

	"connectrpc.com/connect"
)

type refusing struct {
	atelierv1connect.UnimplementedSweepServiceHandler
	ids []string
}

func (r *refusing) CreateSweep(_ context.Context, q *connect.Request[v1.CreateSweepRequest]) (*connect.Response[v1.CreateSweepResponse], error) {
	r.ids = append(r.ids, q.Msg.GetRequestId())
	return nil, connect.NewError(connect.CodeInternal, errors.New("no answer that says whether it was made"))
}

// A training whose sweep was asked for without an answer asks again for the same
// one: it is not trained twice, nor here.
func TestSweepIsAskedForOnce(t *testing.T) {
	base := folders(t)
	cluster := &refusing{}
	_, h := atelierv1connect.NewSweepServiceHandler(cluster)
	s := httptest.NewServer(h)
	defer s.Close()
	api := client.New([]string{s.Listener.Addr().String()}, client.WithRetryFor(time.Second))
	defer api.Close()
	p := plan(t, base)
	for range 2 {
		if _, err := train.Remote(t.Context(), p, train.Options{Watch: &watcher{}, Now: time.Now}, train.Cluster{API: api}); err == nil {
			t.Fatal("no error")
		}
		c := train.New()
		r, err := train.Resume(p.Folder, c)
		if err != nil || !r.Remote || r.Sweep != "" {
			t.Fatalf("%+v %v", r, err)
		}
		if p, err = train.NewPlan(c, base, "", true); err != nil {
			t.Fatal(err)
		}
		p.From(r)
	}
	if len(cluster.ids) != 2 || len(cluster.ids[0]) < 16 || cluster.ids[0] != cluster.ids[1] {
		t.Errorf("asked for as %q", cluster.ids)
	}
}

// A folder of a build of before is understood.
func TestEarlierFolders(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"resume/run.json": `{
  "format": 1,
  "base_dir": "/data",
  "threads": 3,
  "values": [{"key": "lr", "value": 0.5, "source": "--lr"}, {"key": "seed", "value": 18446744073709551615, "source": "resumed run, --set seed"}],
  "mlflow_run": "abc",
  "sweep": "s-k3v9q2ma"
}`,
		"training_history.json":       `{"status":"running","epochs":[1],"train_loss":[1],"train_acc":[1],"val_loss":[1],"val_acc":[1],"lr":[1],"images_per_s":[1],"epoch_seconds":[1]}`,
		"resume/epoch-0001-run-1.pth": "",
		"replaced/.stage":             "kept",
		"replaced/best_model.pth":     "",
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := train.New()
	r, err := train.Resume(dir, c)
	if err != nil || r.Base != "/data" || r.Threads != 3 || r.Tracked != "abc" || r.Sweep != "s-k3v9q2ma" || !r.Remote || r.Epoch != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	if v := c.Get("lr"); v.Data != 0.5 || v.Source() != "resumed run, --lr" || v.Origin != setting.Resumed {
		t.Errorf("%+v", v)
	}
	if v := c.Get("seed"); v.Data != uint64(18446744073709551615) || v.Source() != "resumed run, --set seed" {
		t.Errorf("%+v", v)
	}
	// It goes on in its cluster: what it replaces stays where it is.
	p := plan(t, folders(t))
	p.Folder = dir
	var exists *session.ExistsError
	if _, err := train.Local(t.Context(), p, train.Options{Watch: &watcher{}, Now: time.Now}); !errors.As(err, &exists) || exists.Text != "a training that continues in the cluster as sweep s-k3v9q2ma" {
		t.Error(err)
	}
	for _, name := range []string{"resume/run.json", "replaced/best_model.pth"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	// Whoever replaces it hears of the sweep.
	p = plan(t, folders(t))
	p.Folder = dir
	if r, err := train.Local(t.Context(), p, train.Options{Trainer: "/nosuch", Watch: &watcher{}, Now: time.Now, Overwrite: true}); err == nil || r == nil || !strings.Contains(strings.Join(p.Notes, "\n"), "atelier sweep cancel s-k3v9q2ma") {
		t.Errorf("%v: %q", err, p.Notes)
	}
}
