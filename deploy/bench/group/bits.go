package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"atelier/common/client"
	"atelier/deploy/bench/harness"
)

const (
	bitsShards = 8
	bitsEpochs = 3
)

// ways to carry one training out; each must come to the same bits.
var ways = []struct {
	name    string
	members string
	run     func(b *bench, ctx context.Context, dir string, w work) (bit, error)
}{
	{name: "1 member", members: "1"}, {name: "2 members", members: "2"}, {name: "3 members", members: "3"}, {name: "4 members", members: "4"}, {name: "8 members", members: "8"},
	{name: "1 to 4 to 2 members, in a cluster", run: (*bench).growAndShrink},
	{name: "3 members killed at once, resumed with 2", run: (*bench).killAndResume},
}

// bit is what one way came to.
type bit struct {
	outcome
	Views string `json:"views,omitempty"` // members of each view, where they changed
}

func bitsKey(model, precision, way string, size int) string {
	return fmt.Sprintf("bits model=%s precision=%s size=%d way=%s", model, precision, size, way)
}

// bitsWork is the training: all that depends on order, chance or statistics is on.
func (b *bench) bitsWork(data, model, precision string) work {
	return work{data: data, model: model, epochs: bitsEpochs, batch: 16, set: []string{
		fmt.Sprintf("shards=%d", bitsShards), fmt.Sprintf("image_size=%d", b.size), "precision=" + precision,
		"augmentation.cutmix.enabled=true", "augmentation.flip=true", "augmentation.crop=pad", "augmentation.jitter.brightness=0.2",
		"ema_decay=0.9", "dropout_rate=0.2", "accumulate=2", "clip_norm=1", "schedule=cosine"}}
}

// measureBits trains in each way.
func (b *bench) measureBits(ctx context.Context) error {
	data, err := b.bitsData(ctx)
	if err != nil {
		return err
	}
	for _, model := range b.models {
		for _, precision := range b.precisions {
			for _, way := range ways {
				w := b.bitsWork(data, model, precision)
				_, err := harness.Measure(b.Session, bitsKey(model, precision, way.name, b.size), func() (bit, error) {
					dir, err := b.scratch("bits")
					if err != nil {
						return bit{}, err
					}
					defer os.RemoveAll(dir)
					if way.run != nil {
						return way.run(b, ctx, dir, w)
					}
					o, err := b.train(ctx, b.Bin, dir, w, way.members, nil)
					return bit{outcome: o}, errors.Join(err, o.whole(bitsEpochs))
				})
				if err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// bitsData is a split of the images, or drawn ones.
func (b *bench) bitsData(ctx context.Context) (string, error) {
	if b.images == "" {
		return b.draw(ctx, 50, 12, b.size)
	}
	to := filepath.Join(b.data, "split-"+filepath.Base(b.images))
	return to, b.call(ctx, "data", "split", b.images, to)
}

// killAndResume kills every member at once after the first epoch, and resumes from
// the last checkpoint with another number of members.
func (b *bench) killAndResume(ctx context.Context, dir string, w work) (bit, error) {
	t, err := b.start(ctx, b.Bin, dir, w, "3", nil)
	if err != nil {
		return bit{}, err
	}
	defer t.close()
	if err := t.until("an epoch is reported", 5*time.Minute, func() bool {
		h, err := t.history()
		return err == nil && len(h.Epochs) >= 1
	}); err != nil {
		return bit{}, err
	}
	members := childrenOf(t.cmd.Process.Pid, "atelier-trainer")
	if len(members) < 3 {
		return bit{}, fmt.Errorf("%d trainers run, want 3", len(members))
	}
	// None may see another's end before its own.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range members {
			_ = syscall.Kill(pid, sig)
		}
	}
	<-t.ended
	h, err := t.history()
	if err != nil || t.err == nil || len(h.Epochs) >= w.epochs {
		return bit{}, fmt.Errorf("a training whose members were all killed ended with %v after %d epochs (%v)\n%s", t.err, len(h.Epochs), err, t.words.last())
	}
	again, err := b.resume(ctx, t, "2")
	if err != nil {
		return bit{}, err
	}
	defer again.close()
	o, err := again.wait()
	return bit{outcome: o, Views: fmt.Sprintf("3 2, resumed after epoch %d", len(h.Epochs))}, errors.Join(err, o.whole(w.epochs))
}

// growAndShrink trains with 1 to 4 members on a worker of four slots: three are in
// use at first, then free, then two are wanted by others.
func (b *bench) growAndShrink(ctx context.Context, dir string, w work) (bit, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	m, err := b.startMachines(ctx, "grow", 1, 1, 4, "torch,sim", nil)
	if err != nil {
		return bit{}, err
	}
	defer m.close()
	c := m.Client()
	occupy := func(slots int) (string, error) {
		spec := fmt.Sprintf("name: others\nsearch_method: random\nseed: 1\npriority: 5\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: %d}\nparallelism: %[1]d\ntrainer: sim\n"+
			"space:\n  lr: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}\ntraining: {epochs: 10000, epoch_seconds: 0.5, checkpoint_every: 0}\n", slots)
		s, _, err := c.Submit(ctx, client.Submission{Spec: spec, Name: "others"})
		if err != nil {
			return "", err
		}
		return s.ID, nil
	}
	three, err := occupy(3)
	if err != nil {
		return bit{}, err
	}
	if err := m.awaitRunning(ctx, three, 3); err != nil {
		return bit{}, err
	}
	t, err := b.start(ctx, b.Bin, dir, w, "1-4", m.addresses())
	if err != nil {
		return bit{}, err
	}
	defer t.close()
	f, err := m.follow(ctx, t)
	if err != nil {
		return bit{}, err
	}
	members := func(n int) func() bool {
		return func() bool { return len(f.present()) == n }
	}
	if err := t.until("one member trains", time.Minute, members(1)); err != nil {
		return bit{}, err
	}
	if err := m.cancel(ctx, three); err != nil {
		return bit{}, err
	}
	if err := t.until("four members train", time.Minute, members(4)); err != nil {
		return bit{}, fmt.Errorf("%w; views: %s", err, shape(f.seen()))
	}
	two, err := occupy(2)
	if err != nil {
		return bit{}, err
	}
	if err := t.until("two members train", time.Minute, members(2)); err != nil {
		return bit{}, fmt.Errorf("%w; views: %s", err, shape(f.seen()))
	}
	o, err := t.wait()
	if err != nil {
		return bit{}, err
	}
	_ = m.cancel(ctx, two)
	views := f.seen()
	grown := slices.IndexFunc(views, func(v seenView) bool { return len(v.Members) == 4 })
	if grown < 0 || len(views[0].Members) != 1 || !slices.ContainsFunc(views[grown:], func(v seenView) bool { return len(v.Members) == 2 }) {
		return bit{}, fmt.Errorf("the views had %s members, want 1, then 4, then 2", shape(views))
	}
	return bit{outcome: o, Views: shape(views)}, o.whole(w.epochs)
}

// bitsTable is Markdown: a row for each model and precision.
func bitsTable(j *harness.Journal) string {
	type row struct{ model, precision, size string }
	var rows []row
	found := map[row]map[string]bit{}
	for _, key := range j.Keys("bits") {
		var r row
		head, way, _ := strings.Cut(strings.TrimPrefix(key, "bits "), " way=")
		if n, _ := fmt.Sscanf(head, "model=%s precision=%s size=%s", &r.model, &r.precision, &r.size); n != 3 {
			continue
		}
		var x bit
		if !j.Newest(key, &x) {
			continue
		}
		if found[r] == nil {
			found[r] = map[string]bit{}
			rows = append(rows, r)
		}
		found[r][way] = x
	}
	if len(rows) == 0 {
		return ""
	}
	table := harness.NewTable("model", "precision", "px", "way", "SHA-256 of best_model.pth", "as 1 member", "members of each view", "seconds")
	different := 0
	for _, r := range rows {
		one := found[r][ways[0].name].Hash
		for _, way := range ways {
			x, ok := found[r][way.name]
			if !ok {
				continue
			}
			same := "equal"
			if x.Hash != one {
				same = "**different**"
				different++
			}
			table.Row("%s | %s | %s | %s | %.16s... | %s | %s | %.0f", r.model, r.precision, r.size, way.name, x.Hash, same, x.Views, x.Seconds)
		}
	}
	return fmt.Sprintf("### Bits: one training in several ways, %d shards, %d epochs\n\n%s\n%d of the hashes are different.\n\n%s", bitsShards, bitsEpochs, table, different, j.Conditions("bits"))
}
