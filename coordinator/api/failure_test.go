package api_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/api"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// failing is a log that fails as the test says; nil = it works.
type failing struct {
	api.Log
	write, verify atomic.Pointer[error]
}

func (f *failing) Propose(ctx context.Context, c *logv1.Command) (state.Result, error) {
	if err := f.write.Load(); err != nil {
		return state.Result{}, *err
	}
	return f.Log.Propose(ctx, c)
}

func (f *failing) VerifyLeader(ctx context.Context) error {
	if err := f.verify.Load(); err != nil {
		return *err
	}
	return f.Log.VerifyLeader(ctx)
}

// What the log says of a write or of leadership has a code that programs branch on,
// and where no leader answered, whether anything was done.
func TestWhatTheLogSays(t *testing.T) {
	var log failing
	c := node.Start(t, node.Options{Log: func(l api.Log) api.Log { log.Log = l; return &log }})
	sw := c.Create(t, coordinatortest.Spec(2, 1))
	for _, x := range []struct {
		err    error
		code   connect.Code
		refuse client.Refusal
		text   string
	}{
		{&replica.NotLeaderError{LeaderID: "n2", LeaderRaft: "a:1"}, connect.CodeUnavailable, client.Refusal{Reason: client.ReasonNoLeader, NothingDone: true}, "nothing was written: ask again"},
		{fmt.Errorf("at the commit: %w", replica.ErrUnknown), connect.CodeUnavailable, client.Refusal{Reason: client.ReasonNoLeader}, "recorded or not: repeat it with the same request id"},
		{context.DeadlineExceeded, connect.CodeUnavailable, client.Refusal{Reason: client.ReasonNoLeader}, "no leader confirmed it in time"},
		{&replica.NoSpaceError{Rooms: []replica.Room{{Folder: "/data"}}}, connect.CodeResourceExhausted, client.Refusal{}, "no room for new entries"},
		{context.Canceled, connect.CodeCanceled, client.Refusal{}, ""},
		{errors.New("something else"), connect.CodeInternal, client.Refusal{}, "something else"},
	} {
		check := func(what string, err error) {
			t.Helper()
			coordinatortest.WantCode(t, what, err, x.code, x.text)
			if r := client.RefusalOf(err); r.Reason != x.refuse.Reason || r.NothingDone != x.refuse.NothingDone {
				t.Errorf("%s: %v: refused with %+v, want %+v", what, x.err, r, x.refuse)
			}
		}
		log.write.Store(&x.err)
		_, err := c.Sweeps.CreateSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.CreateSweepRequest{SpecYaml: coordinatortest.Spec(1, 1)}))
		check("create", err)
		_, err = c.Sweeps.ControlSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ControlSweepRequest{Id: sw.Id, Action: wire.ToAction(trial.ActionPause)}))
		check("control", err)
		_, err = c.Sweeps.ExtendSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ExtendSweepRequest{Id: sw.Id, AddTrials: 1}))
		check("extend", err)
		_, err = c.Sweeps.PrioritizeSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.PrioritizeSweepRequest{Id: sw.Id, Priority: 1}))
		check("prioritize", err)
		_, err = c.Trials.StopTrial(coordinatortest.Context(t), connect.NewRequest(&atelierv1.StopTrialRequest{SweepId: sw.Id, Trial: 1}))
		check("stop", err)
		_, err = c.Workers.Relay(coordinatortest.Context(t), connect.NewRequest(&atelierv1.RelayRequest{Events: []*atelierv1.RunEvent{{SweepId: sw.Id, Trial: 1}}}))
		check("relay", err)
		_, err = c.Workers.DrainWorker(coordinatortest.Context(t), connect.NewRequest(&atelierv1.DrainWorkerRequest{Name: "w", Undo: true}))
		check("undrain", err)
		log.write.Store(nil)

		log.verify.Store(&x.err)
		_, err = c.Sweeps.GetSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.GetSweepRequest{Id: sw.Id}))
		check("get", err)
		_, err = c.Sweeps.WaitSweep(coordinatortest.Context(t), connect.NewRequest(&atelierv1.WaitSweepRequest{Id: sw.Id}))
		check("wait", err)
		_, err = c.Trials.ListTrials(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: sw.Id}))
		check("trials", err)
		_, err = c.Workers.Heartbeat(coordinatortest.Context(t), connect.NewRequest(&atelierv1.HeartbeatRequest{Worker: &atelierv1.Worker{Name: "w"}}))
		check("heartbeat", err)
		_, err = c.Cluster.ListMembers(coordinatortest.Context(t), connect.NewRequest(&atelierv1.ListMembersRequest{}))
		check("members", err)
		log.verify.Store(nil)
	}
	c.Sweep(t, sw.Id)
}

// A worker of another cluster is told whose this is; a worker of the cluster that this
// one was recovered from is not turned away.
func TestWorkerOfAnotherCluster(t *testing.T) {
	c := node.Start(t, node.Options{})
	beat := func(cluster string) (*atelierv1.HeartbeatResponse, error) {
		r, err := c.Workers.Heartbeat(coordinatortest.Context(t), connect.NewRequest(&atelierv1.HeartbeatRequest{ClusterId: cluster, Worker: &atelierv1.Worker{Name: "w", Incarnation: "i"}}))
		if err != nil {
			return nil, err
		}
		return r.Msg, nil
	}
	mine, err := beat("")
	if err != nil || mine.Cluster.Id == "" {
		t.Fatal(mine, err)
	}
	if _, err := beat(mine.Cluster.Id); err != nil {
		t.Error(err)
	}
	_, err = beat("c-other")
	coordinatortest.WantCode(t, "another cluster's", err, connect.CodeUnavailable, "belongs to cluster c-other, this is cluster "+mine.Cluster.Id)
	if r := client.RefusalOf(err); r.Reason != client.ReasonOtherCluster || r.Cluster != mine.Cluster.Id {
		t.Errorf("refused with %+v", r)
	}
	coordinatortest.Refused(t, "no name", c.Workers.Heartbeat, &atelierv1.HeartbeatRequest{}, connect.CodeInvalidArgument, "")
	coordinatortest.Refused(t, "drain of nobody", c.Workers.DrainWorker, &atelierv1.DrainWorkerRequest{}, connect.CodeInvalidArgument, "no worker named")
	coordinatortest.Refused(t, "drain of a stranger", c.Workers.DrainWorker, &atelierv1.DrainWorkerRequest{Name: "w9"}, connect.CodeNotFound, `worker "w9" has not been heard of`)
}
