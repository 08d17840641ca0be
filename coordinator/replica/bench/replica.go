package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"

	"google.golang.org/protobuf/proto"
)

const sweep = "s-bench"

// startReplica starts three nodes and a running trial for every client; a write
// is one report of three metrics, made as long as bytes by an unused request id. It
// returns the size of such a command.
func startReplica(dir, store string, clients, inFlight, bytes int) (*target, int, error) {
	var nodes []*replica.Node
	closeAll := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		for _, n := range nodes {
			n.Shutdown(ctx)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			closeAll()
			return nil, 0, err
		}
		id := fmt.Sprintf("n%d", i+1)
		n, err := replica.Open(replica.Config{ID: id, DataDir: filepath.Join(dir, id), Listener: l, Bootstrap: i == 0, ClusterID: "bench", Machine: state.New(), LogStore: replica.LogStore(store), InFlight: inFlight})
		if err != nil {
			closeAll()
			return nil, 0, err
		}
		nodes = append(nodes, n)
		if i == 0 {
			for n.VerifyLeader(ctx) != nil {
				if ctx.Err() != nil {
					closeAll()
					return nil, 0, fmt.Errorf("the first node does not lead: %w", ctx.Err())
				}
				time.Sleep(5 * time.Millisecond)
			}
		} else if err := nodes[0].AddMember(ctx, id, l.Addr().String()); err != nil {
			closeAll()
			return nil, 0, err
		}
	}
	leader := nodes[0]
	must := func(c *logv1.Command) (state.Result, error) {
		r, err := leader.Propose(ctx, c)
		if err == nil {
			err = r.Err
		}
		return r, err
	}
	n := int64(clients)
	points := strings.Split(strings.Repeat("{} ", clients), " ")[:clients]
	_, err := must(&logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: sweep, BudgetTrials: n, Parallelism: n,
		Objective: wire.ToObjective(trial.Objective{Metric: "val_loss"})}}})
	if err == nil {
		_, err = must(&logv1.Command{Op: &logv1.Command_ProposeTrials{ProposeTrials: &logv1.ProposeTrials{Id: sweep, First: 1, ParamsJson: points}}})
	}
	writes := make([]func() error, clients)
	size, padding := 0, ""
	for i := range clients {
		if err != nil {
			closeAll()
			return nil, 0, err
		}
		var r state.Result
		r, err = must(&logv1.Command{Op: &logv1.Command_GrantLease{GrantLease: &logv1.GrantLease{Id: sweep, Trial: int64(i + 1), Worker: "worker-1", Incarnation: "i", Request: fmt.Sprint(i)}}})
		epoch := int32(0)
		command := func() *logv1.Command {
			epoch++
			return &logv1.Command{RequestId: padding, TimeMs: time.Now().UnixMilli(), Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{{
				SweepId: sweep, Trial: int64(i + 1), Token: r.Token, Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: epoch, TimeMs: time.Now().UnixMilli(), Metrics: []*atelierv1.Metric{
					{Name: "train_loss", Value: 1 / float64(epoch)}, {Name: "val_loss", Value: 2 / float64(epoch)}, {Name: "val_acc", Value: 0.5}}}}}}}}}
		}
		size = proto.Size(command())
		if padding == "" && size+3 < bytes {
			padding = strings.Repeat("x", bytes-size-3)
			size = proto.Size(command())
		}
		writes[i] = func() error {
			r, err := leader.Propose(context.Background(), command())
			if err == nil && r.Events[0].Outcome != trial.OutcomeRecorded {
				err = fmt.Errorf("a report was not recorded: %v", r.Events[0])
			}
			return err
		}
	}
	before := leader.Stats()
	return &target{
		write: func(c int) error { return writes[c]() },
		batch: func() float64 {
			now := leader.Stats()
			return float64(now.Commands-before.Commands) / float64(now.Entries-before.Entries)
		},
		close: closeAll,
	}, size, nil
}
