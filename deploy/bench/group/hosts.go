package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"atelier/common/trial"
	"atelier/deploy/bench/harness"
)

const (
	hostsMbit   = 1000
	hostsModel  = "resnet18"
	hostsSize   = 64
	hostsBatch  = 48
	hostsShards = 4
)

// hosted is what was seen of a training on three hosts.
type hosted struct {
	outcome
	Want    string  `json:"want"`
	Views   string  `json:"views"`
	Waiting float64 `json:"waiting"` // share of a step in which a member waits, median of what workers showed
	Step    float64 `json:"step_s"`
	Settled float64 `json:"settled_ms"` // of a cut host: until the others computed without it
	Stopped float64 `json:"stopped_ms"` // until its member had ended by itself
	Runs    int     `json:"runs"`
}

// measureHosts trains on three hosts with a limited network between them, once as
// it is and once with a host cut off.
func (b *bench) measureHosts(ctx context.Context) error {
	data, err := b.draw(ctx, b.count(128, 48), 16, hostsSize)
	if err != nil {
		return err
	}
	w := work{data: data, model: hostsModel, epochs: b.count(8, 4), batch: hostsBatch, set: []string{fmt.Sprintf("image_size=%d", hostsSize), fmt.Sprintf("shards=%d", hostsShards)}}
	one, err := harness.Measure(b.Session, fmt.Sprintf("hosts one process, %d epochs", w.epochs), func() (outcome, error) {
		dir, err := b.scratch("one")
		if err != nil {
			return outcome{}, err
		}
		return b.train(ctx, b.Bin, dir, w, "1", nil)
	})
	if err != nil {
		return err
	}
	for _, part := range []string{"whole", "partition"} {
		x, err := harness.Measure(b.Session, fmt.Sprintf("hosts %s, %d Mbit/s, %d epochs", part, hostsMbit, w.epochs), func() (hosted, error) {
			x, err := b.onHosts(ctx, w, part == "partition")
			x.Want = one.Hash
			return x, err
		})
		if b.skipped(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if x.Hash != one.Hash {
			b.Say("WRONG: %s: best_model.pth is %.12s, that of one process %.12s", part, x.Hash, one.Hash)
		}
	}
	return nil
}

func (b *bench) onHosts(ctx context.Context, w work, partition bool) (x hosted, err error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	net, err := newNetwork(hostsMbit, []string{"c1", "w1"}, []string{"c2", "w2"}, []string{"c3", "w3"})
	if err != nil {
		return x, err
	}
	m, err := b.startMachines(ctx, "hosts", 3, 3, 1, "torch", net)
	if err != nil {
		net.close()
		return x, err
	}
	defer m.close()
	dir, err := b.scratch("hosts")
	if err != nil {
		return x, err
	}
	defer os.RemoveAll(dir)
	t, err := b.start(ctx, b.Bin, dir, w, "1-3", m.addresses())
	if err != nil {
		return x, err
	}
	defer t.close()
	f, err := m.follow(ctx, t)
	if err != nil {
		return x, err
	}
	if err := t.until("three members train", 2*time.Minute, func() bool { return len(f.present()) == 3 }); err != nil {
		return x, err
	}
	if partition {
		if err := m.partition(ctx, f, t, &x); err != nil {
			return x, err
		}
	}
	if x.outcome, err = t.wait(); err != nil {
		return x, err
	}
	f.look(ctx)
	x.Views, x.Step = shape(f.seen()), harness.Median(f.stepTimes())
	f.mu.Lock()
	x.Waiting = harness.Median(f.waits)
	x.Runs = len(f.last.Runs)
	f.mu.Unlock()
	epochs, err := m.reported(ctx, f.sweep)
	return x, errors.Join(err, x.whole(w.epochs), outcome{Epochs: epochs}.whole(w.epochs))
}

// partition cuts the host of a member that does not report off, for good, and
// looks at what becomes of both sides.
func (m *machines) partition(ctx context.Context, f *follower, t *training, x *hosted) error {
	if err := t.until("an epoch", time.Minute, func() bool { tr, _ := f.now(); return tr != nil && tr.Epoch > 0 }); err != nil {
		return err
	}
	present := f.present()
	if len(present) < 3 {
		return fmt.Errorf("%d members before the cut, want 3", len(present))
	}
	victim := present[len(present)-1]
	pid := m.trainer(victim)
	h := m.net.of(victim.Worker)
	if h == nil || pid == 0 {
		return fmt.Errorf("member %s has no host or no trainer", victim.Name())
	}
	at := time.Now()
	if err := m.net.cut(h); err != nil {
		return err
	}
	for syscall.Kill(pid, 0) == nil && m.trainer(victim) == pid {
		if time.Since(at) > time.Minute || ctx.Err() != nil {
			return fmt.Errorf("the member on the cut host still runs after %s", time.Since(at).Round(time.Second))
		}
		time.Sleep(10 * time.Millisecond)
	}
	x.Stopped = float64(time.Since(at).Milliseconds())
	if err := t.until("the others continue", time.Minute, func() bool {
		return slices.IndexFunc(f.present(), func(g trial.GroupMember) bool { return g.ID == victim.ID }) < 0 && len(f.present()) > 0
	}); err != nil {
		return err
	}
	x.Settled = settled("network", hit{victim.ID, at.UnixMilli()}, 0, 1, f.seen()).Settled
	return nil
}

// hostsTable is Markdown.
func hostsTable(j *harness.Journal) string {
	table := harness.NewTable("training", "members of each view", "step, ms", "share of it waiting", "cut to new view, ms", "cut to end of the minority's member, ms", "runs", "as one process", "seconds")
	rows := 0
	for _, key := range j.Keys("hosts") {
		var x hosted
		if !j.Newest(key, &x) || x.Want == "" {
			continue
		}
		rows++
		same := "equal"
		if x.Hash != x.Want {
			same = "**different**"
		}
		number := func(v float64) string {
			if v == 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f", v)
		}
		table.Row("%s | %s | %.0f | %.0f %% | %s | %s | %d | %s | %.0f", key[len("hosts "):], x.Views, 1000*x.Step, 100*x.Waiting, number(x.Settled), number(x.Stopped), x.Runs, same, x.Seconds)
	}
	if rows == 0 {
		return ""
	}
	return fmt.Sprintf("### Three hosts (network namespaces): %s, %d px, batch %d, %d shards\n\n%s\n%s", hostsModel, hostsSize, hostsBatch, hostsShards, table, j.Conditions("hosts"))
}
