package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// control asks for an action.
func control(t *testing.T, c *node.Node, id string, a trial.Action) (*atelierv1.Sweep, error) {
	t.Helper()
	r, err := c.Sweeps.ControlSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ControlSweepRequest{Id: id, Action: wire.ToAction(a), RequestId: client.NewRequestID()}))
	if err != nil {
		return nil, err
	}
	return r.Msg.Sweep, nil
}

// listed is the ids of the sweeps that a list has, newest first.
func listed(t *testing.T, c *node.Node, q *atelierv1.ListSweepsRequest) string {
	t.Helper()
	r, err := c.Sweeps.ListSweeps(coordinatortest.Context(t), connect.NewRequest(q))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, s := range r.Msg.Sweeps {
		ids = append(ids, s.Id)
	}
	return strings.Join(ids, " ")
}

// A spec's name must not read as an id or a reference by age.
func TestNamesOfNewSweeps(t *testing.T) {
	c := node.Start(t, node.Options{})
	for _, name := range []string{"s-5u", "x@", "@2"} {
		spec := strings.Replace(coordinatortest.ExternalSpec("random", "{trials: 2}", 1), "name: elsewhere", "name: '"+name+"'", 1)
		_, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{SpecYaml: spec, RequestId: client.NewRequestID()}))
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "name: ") || !strings.Contains(err.Error(), ": it ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLabels(t *testing.T) {
	c := node.Start(t, node.Options{})
	s := c.Create(t, coordinatortest.ExternalSpec("random", "{trials: 2}", 1))
	label := func(q *atelierv1.LabelSweepRequest) (*atelierv1.Sweep, error) {
		q.Id = s.Id
		r, err := c.Sweeps.LabelSweep(coordinatortest.Context(t), connect.NewRequest(q))
		if err != nil {
			return nil, err
		}
		return r.Msg.Sweep, nil
	}
	got, err := label(&atelierv1.LabelSweepRequest{RequestId: "one", Name: new("facades at night"), AddTags: []string{"b", "a"}, Note: new("first\nsecond")})
	if err != nil || got.Name != "facades at night" || strings.Join(got.Tags, " ") != "a b" || got.UserNote != "first\nsecond" {
		t.Fatalf("labelled %v, %v", got, err)
	}
	if _, err = label(&atelierv1.LabelSweepRequest{RequestId: "two", Name: new("other"), RemoveTags: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if got, err = label(&atelierv1.LabelSweepRequest{RequestId: "one", Name: new("facades at night")}); err != nil || got.Name != "other" || strings.Join(got.Tags, " ") != "b" || got.UserNote == "" {
		t.Errorf("a repeat was carried out again: %v, %v", got, err)
	}
	for what, q := range map[string]*atelierv1.LabelSweepRequest{"escape": {Name: new("a\x1b[31m")}, "an id": {Name: new("s-5u")}, "by age": {Name: new("x@2")}, "long": {Note: new(strings.Repeat("x", 10_000))}, "bidi": {AddTags: []string{"a\u202eb"}}, "blank": {AddTags: []string{"a b"}}} {
		_, err := label(q)
		coordinatortest.WantCode(t, what, err, connect.CodeInvalidArgument, s.Id)
	}
}

func TestArchivedAndDeletedSweeps(t *testing.T) {
	c := node.Start(t, node.Options{})
	spec := coordinatortest.ExternalSpec("random", "{trials: 2}", 1)
	submit := &atelierv1.CreateSweepRequest{RequestId: "a wish of somebody", SpecYaml: spec}
	r, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(submit))
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.Msg.Sweep.Id, c.Create(t, spec).Id
	if _, err := control(t, c, b, trial.ActionArchive); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, c, &atelierv1.ListSweepsRequest{}); got != a {
		t.Errorf("listed %s, want %s", got, a)
	}
	if got := listed(t, c, &atelierv1.ListSweepsRequest{Archived: true, Limit: 1}); got != b {
		t.Errorf("the newest with archived ones is %s, want %s", got, b)
	}
	_, err = control(t, c, a, trial.ActionDelete)
	coordinatortest.WantCode(t, "delete a running one", err, connect.CodeFailedPrecondition, "it is running: cancel or stop it first")
	c.Play(t, a, 1, 2, func(int64) {})
	coordinatortest.Until(t, "the end", func() bool { return c.Sweep(t, a).EndedMs != 0 })
	trials := c.TrialsOf(t, a)
	deleted, err := control(t, c, a, trial.ActionDelete)
	if err != nil || deleted.DeletedMs == 0 || deleted.PurgeMs != deleted.DeletedMs+24*3600*1000 {
		t.Fatalf("deleted %v, %v", deleted, err)
	}
	if got := listed(t, c, &atelierv1.ListSweepsRequest{Archived: true}); got != b {
		t.Errorf("listed %s after the deletion", got)
	}
	// Until it is purged all of it is there, and a repeated submission finds it and warns.
	if got := c.TrialsOf(t, a); len(got) != len(trials) {
		t.Errorf("%d of %d trials after the deletion", len(got), len(trials))
	}
	r, err = c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(submit))
	if err != nil || r.Msg.Sweep.Id != a || !strings.Contains(strings.Join(r.Msg.Warnings, " "), "sweep undelete "+a) {
		t.Errorf("submitted again: %v, %v", r, err)
	}
	if s, err := control(t, c, a, trial.ActionUndelete); err != nil || s.DeletedMs != 0 || s.PurgeMs != 0 {
		t.Errorf("taken back: %v, %v", s, err)
	}
	purge := func() error {
		_, err := c.Sweeps.PurgeSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.PurgeSweepRequest{Id: a}))
		return err
	}
	coordinatortest.WantCode(t, "purge what is not deleted", purge(), connect.CodeFailedPrecondition, "it is not deleted")
	if _, err := control(t, c, a, trial.ActionDelete); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := purge(); err != nil {
			t.Fatal(err)
		}
	}
	if got := listed(t, c, &atelierv1.ListSweepsRequest{Archived: true, Deleted: true}); got != b {
		t.Errorf("listed %s after the purge", got)
	}
	_, err = c.Sweeps.ListCheckpoints(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: a}))
	coordinatortest.WantCode(t, "its checkpoints", err, connect.CodeNotFound, "was deleted at")
	if client.RefusalOf(err).Reason != client.ReasonDeleted {
		t.Errorf("workers are not told why: %v", err)
	}
	_, err = c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(submit))
	coordinatortest.WantCode(t, "submitted again", err, connect.CodeNotFound, "sweep "+a+" was deleted at")
	if s := c.Create(t, spec); s.Id == a {
		t.Error("the id was given again")
	}
}

// TestNotify: an address is checked before anything is written, is shown without what may
// be secret, and the end arrives there.
func TestNotify(t *testing.T) {
	c := node.Start(t, node.Options{})
	posted := make(chan string, 10)
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		posted <- string(b)
	}))
	defer web.Close()
	spec := coordinatortest.ExternalSpec("random", "{trials: 2}", 1)
	create := func(url string) (*atelierv1.Sweep, error) {
		r, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: client.NewRequestID(), SpecYaml: spec, Notify: &atelierv1.Notification{Url: url}}))
		if err != nil {
			return nil, err
		}
		return r.Msg.Sweep, nil
	}
	for _, url := range []string{"http://169.254.169.254/secret", "ftp://h/secret", "https:///secret"} {
		_, err := create(url)
		coordinatortest.WantCode(t, url, err, connect.CodeInvalidArgument, "notify")
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error names the secret: %v", err)
		}
	}
	if got := listed(t, c, &atelierv1.ListSweepsRequest{}); got != "" {
		t.Fatalf("made all the same: %s", got)
	}
	s, err := create(web.URL + "/secret")
	if err != nil || s.Notification.GetUrl() != web.URL {
		t.Fatalf("made %v, %v", s, err)
	}
	c.Play(t, s.Id, 1, 2, func(int64) {})
	select {
	case body := <-posted:
		if !strings.Contains(body, `"event":"sweep.finished"`) || !strings.Contains(body, `"best":{"trial":`) || !strings.Contains(body, "2 of 2 trials ended") {
			t.Errorf("posted %s", body)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was posted")
	}
	coordinatortest.Until(t, "it is written down", func() bool { return c.Sweep(t, s.Id).Notification.GetDone() })
	// Of a sweep that has ended the end is posted at once.
	q := &atelierv1.SetNotificationRequest{RequestId: "again", Id: s.Id, Url: web.URL, On: []atelierv1.SweepStatus{wire.ToSweepStatus(trial.SweepFinished)}}
	if _, err := c.Sweeps.SetNotification(coordinatortest.Context(t), connect.NewRequest(q)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-posted:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was posted of a sweep that had ended")
	}
}
