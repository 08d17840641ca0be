package api_test

import (
	"bytes"
	"fmt"
	"testing"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// The end of a run's log is kept for a trial that is known, replaced by a later
// one, and bounded.
func TestEndsOfLogsAreKept(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, coordinatortest.Spec(2, 1))
	api := client.New([]string{c.Addr})
	defer api.Close()
	ctx := coordinatortest.Context(t)
	coordinatortest.Until(t, "the trial is proposed, and its log taken", func() bool { return api.KeepRunLog(ctx, sw.Id, 1, 1, []byte("early")) == nil })
	if err := api.KeepRunLog(ctx, sw.Id, 1, 1, []byte("epoch 1\n")); err != nil {
		t.Fatal(err)
	}
	if k := api.KeptRunLog(ctx, sw.Id, 1, 1); k == nil || string(k.Text) != "epoch 1\n" || k.At.IsZero() {
		t.Errorf("%+v", k)
	}
	if k := api.KeptRunLog(ctx, sw.Id, 1, 2); k != nil {
		t.Errorf("a run that sent nothing: %+v", k)
	}
	for what, err := range map[string]error{
		"an unknown sweep": api.KeepRunLog(ctx, "s-nosuch", 1, 1, nil),
		"an unknown trial": api.KeepRunLog(ctx, sw.Id, 99, 1, nil),
		"too much":         api.KeepRunLog(ctx, sw.Id, 1, 1, bytes.Repeat([]byte("x"), trial.KeptLog+1)),
		"a path":           api.KeepRunLog(ctx, "..", 1, 1, nil),
	} {
		if err == nil {
			t.Error(fmt.Sprint(what, " is taken"))
		}
	}
}
