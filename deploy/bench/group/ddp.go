package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atelier/deploy/bench/harness"
)

// Bars of speed.
const (
	barDDP    = 1.3  // ours over DistributedDataParallel, 2 members of one thread
	barTwo    = 1.8  // 2 members of one thread over 1
	barOne    = 0.97 // 1 member of a group over the build before
	barBroken = 0.5  // wall time of ours over torchrun's, a member killed every 20 s
)

const (
	ddpSize   = 64
	ddpShards = 2
	ddpSteps  = 24 // of an epoch
)

var (
	ddpModels  = []string{"resnet18", "mobilenet_v2"}
	ddpBatches = []int{32, 128} // of all members together
)

// speed of the sides at one model, images a second, one figure a round.
type speed map[string][]float64

// Sides of a round.
const (
	sideTwo  = "2 members"
	sideOne  = "1 member"
	sideBase = "build before"
	sideDDP  = "DDP"
	sideLast = "DDP, channels_last"
)

// measureDDP lets whole trainings of ours and blocks of steps of PyTorch's take
// turns: PyTorch's processes wait for their turn meanwhile.
func (b *bench) measureDDP(ctx context.Context) error {
	for _, batch := range ddpBatches {
		for _, model := range ddpModels {
			key := fmt.Sprintf("ddp model=%s size=%d batch=%d rounds=%d base=%t quick=%t", model, ddpSize, batch, b.Rounds, b.base != "", b.quick)
			if _, err := harness.Measure(b.Session, key, func() (speed, error) { return b.besideDDP(ctx, model, batch) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) besideDDP(ctx context.Context, model string, batch int) (speed, error) {
	data, err := b.draw(ctx, b.count(ddpSteps, 6)*batch/3, 8, ddpSize)
	if err != nil {
		return nil, err
	}
	w := work{data: data, model: model, epochs: b.count(3, 2), batch: batch, set: []string{fmt.Sprintf("image_size=%d", ddpSize), "cache_dir=" + filepath.Join(b.data, "packed")}}
	ours := func(bin, members string, set ...string) func() (float64, error) {
		return func() (float64, error) {
			dir, err := b.scratch("ddp")
			if err != nil {
				return 0, err
			}
			defer os.RemoveAll(dir)
			v := w
			v.set = append(append([]string{}, w.set...), set...)
			o, err := b.train(ctx, bin, dir, v, members, nil)
			return o.warm(), err
		}
	}
	shards := fmt.Sprintf("shards=%d", ddpShards)
	sides := []struct {
		name string
		turn func() (float64, error)
	}{
		{sideTwo, ours(b.Bin, "2", shards)},
		{sideOne, ours(b.Bin, "1", shards, "threads=1")},
	}
	if b.base != "" {
		sides = append(sides, struct {
			name string
			turn func() (float64, error)
		}{sideBase, ours(b.base, "", "threads=1")})
	}
	for _, layout := range []string{"default", "channels_last"} {
		p, err := b.startPeer(ctx, model, batch, layout)
		if err != nil {
			return nil, err
		}
		defer p.close()
		sides = append(sides, struct {
			name string
			turn func() (float64, error)
		}{map[string]string{"default": sideDDP, "channels_last": sideLast}[layout], func() (float64, error) { return p.block(b.count(40, 4)) }})
	}
	s := speed{}
	err = harness.Turns(b.Rounds, len(sides), func(_, i int) error {
		rate, err := sides[i].turn()
		if err != nil {
			return fmt.Errorf("%s: %w", sides[i].name, err)
		}
		s[sides[i].name] = append(s[sides[i].name], rate)
		return nil
	})
	return s, err
}

// torchrun is the command line of PyTorch's launcher with two processes on this
// machine. Debian 12's cannot read its own default of --redirects with Python 3.11,
// so both are given.
func (b *bench) torchrun(logs string, more ...string) []string {
	return append([]string{b.Python, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc_per_node", "2", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0",
		"--redirects", "2", "--tee", "2", "--log_dir", logs}, more...)
}

// peerGroup is PyTorch's side, at work when it is its turn.
type peerGroup struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *lineReader
	words *tailBuffer
}

func (b *bench) startPeer(ctx context.Context, model string, batch int, layout string) (*peerGroup, error) {
	logs, err := b.scratch("torchrun")
	if err != nil {
		return nil, err
	}
	args := b.torchrun(logs, filepath.Join(b.Dir, "peer", "ddp.py"), "--model", model, "--size", strconv.Itoa(ddpSize), "--batch", strconv.Itoa(batch), "--threads", "1", "--layout", layout)
	p := &peerGroup{cmd: exec.CommandContext(ctx, args[0], args[1:]...), words: &tailBuffer{}}
	p.cmd.Stderr = p.words
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = newLineReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; %s is named with -python", err, b.Python)
	}
	var r struct{ Ready bool }
	if err := p.lines.read(&r); err != nil || !r.Ready {
		p.close()
		return nil, fmt.Errorf("%s: not ready: %w\n%s", strings.Join(args, " "), err, p.words.last())
	}
	return p, nil
}

// block does so many steps and returns images a second.
func (p *peerGroup) block(steps int) (float64, error) {
	if _, err := fmt.Fprintln(p.stdin, steps); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, p.words.last())
	}
	var r struct {
		Rate float64 `json:"images_per_s"`
	}
	if err := p.lines.read(&r); err != nil {
		return 0, fmt.Errorf("%w\n%s", err, p.words.last())
	}
	if r.Rate <= 0 {
		return 0, errors.New("a block without a rate")
	}
	return r.Rate, nil
}

// close ends the processes, all of them.
func (p *peerGroup) close() {
	p.stdin.Close()
	ended := make(chan struct{})
	go func() {
		_ = p.cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	}
}

// ddpTable is Markdown.
func ddpTable(j *harness.Journal) string {
	if len(j.Keys("ddp")) == 0 {
		return ""
	}
	table := harness.NewTable("model", "batch", "2 members", "1 member", "build before, 1 thread", "DDP, 2 processes", "DDP, channels_last", "2 members / DDP", "2 members / DDP, channels_last", "2 members / 1", "1 member / build before")
	for _, key := range j.Keys("ddp") {
		var s speed
		if !j.Newest(key, &s) {
			continue
		}
		var model string
		var size, batch int
		if _, err := fmt.Sscanf(key, "ddp model=%s size=%d batch=%d", &model, &size, &batch); err != nil {
			continue // of a journal that another version wrote
		}
		rate := func(side string) string {
			if len(s[side]) == 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f", harness.Median(s[side]))
		}
		ratio := func(a, c string, bar float64) string {
			if len(s[a]) == 0 || len(s[c]) == 0 {
				return "-"
			}
			return marked(harness.Ratio(s[a], s[c]), bar, true)
		}
		table.Cells(model, strconv.Itoa(batch), rate(sideTwo), rate(sideOne), rate(sideBase), rate(sideDDP), rate(sideLast),
			ratio(sideTwo, sideDDP, barDDP), ratio(sideTwo, sideLast, barDDP), ratio(sideTwo, sideOne, barTwo), ratio(sideOne, sideBase, barOne))
	}
	return fmt.Sprintf("### Speed: images a second, %d px, one thread a member, %d shards; medians, ratios round by round\n\n%s\nBars: %.1f over DDP, %.1f of two members over one, %.2f of one member over the build before; bold where reached.\n\n%s",
		ddpSize, ddpShards, table, barDDP, barTwo, barOne, j.Conditions("ddp"))
}

// marked is a figure, bold where it reaches its bar: from above, or from below.
func marked(v, bar float64, above bool) string {
	if above && v >= bar || !above && v <= bar {
		return fmt.Sprintf("**%.2f**", v)
	}
	return fmt.Sprintf("%.2f", v)
}
