package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"atelier/deploy/bench/harness"
)

// A training in which a member is killed again and again, ours and torchrun's.
const (
	elasticSteps = 1500
	elasticEvery = 100 // steps between checkpoints; of ours an epoch
	elasticBatch = 16
	elasticPause = 20 * time.Second // between kills
	elasticLimit = 30 * time.Minute
)

// broken is such a training from its start to its end.
type broken struct {
	Seconds float64 `json:"seconds"`
	Kills   int     `json:"kills"`
	Starts  int     `json:"starts"` // of processes groups: torchrun's restarts, 1 of ours
	Ended   bool    `json:"ended"`  // false: given up after elasticLimit
}

func elasticKey(side string, steps, round int) string {
	return fmt.Sprintf("elastic side=%s steps=%d round=%d", side, steps, round)
}

var elasticSides = []string{"ours", "torchrun"}

func (b *bench) measureElastic(ctx context.Context) error {
	rounds := min(b.Rounds, 3)
	return harness.Turns(rounds, len(elasticSides), func(round, i int) error {
		_, err := harness.Measure(b.Session, elasticKey(elasticSides[i], b.count(elasticSteps, 40), round+1), func() (broken, error) {
			dir, err := b.scratch("elastic")
			if err != nil {
				return broken{}, err
			}
			defer os.RemoveAll(dir)
			if elasticSides[i] == "ours" {
				return b.elasticOurs(ctx, dir)
			}
			return b.elasticPeer(ctx, dir)
		})
		return err
	})
}

// elasticOurs kills one of two members every 20 s; another takes its place.
func (b *bench) elasticOurs(ctx context.Context, dir string) (x broken, err error) {
	steps, every := b.count(elasticSteps, 40), b.count(elasticEvery, 20)
	// Three classes: a number of images that makes an epoch of as many steps as there are between checkpoints.
	data, err := b.draw(ctx, (every*elasticBatch+2)/3, 2, ddpSize)
	if err != nil {
		return x, err
	}
	t, err := b.start(ctx, b.Bin, dir, work{data: data, model: "resnet18", epochs: steps / every, batch: elasticBatch,
		set: []string{fmt.Sprintf("image_size=%d", ddpSize), "shards=2", "cache_dir=" + filepath.Join(b.data, "packed")}}, "2", nil)
	if err != nil {
		return x, err
	}
	defer t.close()
	x.Starts = 1
	x.Kills, x.Ended = killEvery(t.ended, func() []int { return childrenOf(t.cmd.Process.Pid, "atelier-trainer") })
	if !x.Ended {
		x.Seconds = elasticLimit.Seconds()
		return x, nil
	}
	o, err := t.wait()
	x.Seconds = time.Since(t.began).Seconds()
	return x, errors.Join(err, o.whole(steps/every))
}

// elasticPeer does the same to torchrun's processes.
func (b *bench) elasticPeer(ctx context.Context, dir string) (x broken, err error) {
	args := b.torchrun(filepath.Join(dir, "logs"), "--max_restarts", "1000", filepath.Join(b.Dir, "peer", "elastic.py"), "--dir", dir, "--size", strconv.Itoa(ddpSize), "--batch", strconv.Itoa(elasticBatch),
		"--steps", strconv.Itoa(b.count(elasticSteps, 40)), "--every", strconv.Itoa(b.count(elasticEvery, 20)))
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, words tailBuffer
	cmd.Stdout, cmd.Stderr = &out, &words
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return x, err
	}
	ended := make(chan struct{})
	go func() {
		err = cmd.Wait()
		close(ended)
	}()
	kills, over := killEvery(ended, func() (pids []int) {
		for rank := range 2 {
			text, _ := os.ReadFile(filepath.Join(dir, fmt.Sprintf("pid-%d", rank)))
			if pid, err := strconv.Atoi(string(text)); err == nil && parentOf(pid) == cmd.Process.Pid {
				pids = append(pids, pid)
			}
		}
		return pids
	})
	x.Kills, x.Ended, x.Seconds = kills, over, time.Since(began).Seconds()
	if !over {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		err = nil
	}
	x.Starts = strings.Count(out.String(), `"resumed"`)
	if err != nil {
		return x, fmt.Errorf("torchrun: %w\n%s", err, words.last())
	}
	return x, nil
}

// killEvery kills one of the processes every 20 s, each in turn, until the
// training has ended, or for elasticLimit (false).
func killEvery(ended <-chan struct{}, processes func() []int) (kills int, over bool) {
	limit := time.After(elasticLimit)
	for tick := time.NewTicker(elasticPause); ; {
		select {
		case <-ended:
			return kills, true
		case <-limit:
			return kills, false
		case <-tick.C:
			if pids := processes(); len(pids) > 0 {
				_ = syscall.Kill(pids[kills%len(pids)], syscall.SIGKILL)
				kills++
			}
		}
	}
}

// elasticTable is Markdown.
func elasticTable(j *harness.Journal) string {
	table := harness.NewTable("side", "seconds (all rounds)", "kills", "starts of the processes")
	seconds := map[string][]float64{}
	for _, side := range elasticSides {
		var words, kills, starts []string
		for round := 1; ; round++ {
			var x broken
			if !j.Newest(elasticKey(side, elasticSteps, round), &x) {
				break
			}
			seconds[side] = append(seconds[side], x.Seconds)
			text := fmt.Sprintf("%.0f", x.Seconds)
			if !x.Ended {
				text = "not within " + text
			}
			words, kills, starts = append(words, text), append(kills, strconv.Itoa(x.Kills)), append(starts, strconv.Itoa(x.Starts))
		}
		if len(words) == 0 {
			continue
		}
		table.Cells(side, strings.Join(words, ", "), strings.Join(kills, ", "), strings.Join(starts, ", "))
	}
	if len(seconds) == 0 {
		return ""
	}
	return fmt.Sprintf("### %d steps of resnet18 at %d px, batch %d, with one of two members killed every %.0f s; a checkpoint each %d steps\n\n%s\nOurs / torchrun: %s (bar %.1f).\n\n%s",
		elasticSteps, ddpSize, elasticBatch, elasticPause.Seconds(), elasticEvery, table, marked(harness.Ratio(seconds["ours"], seconds["torchrun"]), barBroken, false), barBroken, j.Conditions("elastic"))
}
