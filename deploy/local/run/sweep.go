package main

import (
	"bytes"
	"context"
	"encoding/json"
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

	"atelier/common/setting"
)

// recipe is what the sweeps have in common.
type recipe struct {
	Trainer     string
	Model       string
	Trials      int
	Epochs      int
	ImageSize   int
	Parallelism int
	Seed        uint64
}

// spec writes the sweep of one method. Grid search gets points that the others
// have to find: the best rate differs by a factor of ten between the optimisers.
func (r recipe) spec(method, train, validation string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "name: local-%s\nsearch_method: %s\nseed: %d\n", strings.TrimSuffix(method, "_search"), method, r.Seed)
	fmt.Fprintf(&b, "objective: {metric: val_acc, direction: maximize}\nbudget: {trials: %d}\nparallelism: %d\ntrainer: %s\n", r.Trials, r.Parallelism, r.Trainer)
	switch method {
	case "grid_search":
		b.WriteString(`space:
  optimizer:  {type: categorical, choices: [adam, sgd]}
  lr:         {type: float, values: [0.001, 0.003, 0.01, 0.03]}
  batch_size: {type: categorical, choices: [16, 32]}
`)
	case "bayesian", "genetic", "random", "sobol":
		b.WriteString(`space:
  optimizer:    {type: categorical, choices: [adam, sgd]}
  lr:           {type: float, low: 0.0003, high: 0.1, log: true}
  batch_size:   {type: categorical, choices: [8, 16, 32]}
  momentum:     {type: float, low: 0.5, high: 0.95, when: {optimizer: [sgd]}}
  weight_decay: {type: float, low: 1.0e-6, high: 1.0e-2, log: true}
`)
	default:
		return "", fmt.Errorf("method %q: want grid_search, bayesian, genetic, random or sobol", method)
	}
	fmt.Fprintf(&b, "training:\n  epochs: %d\n", r.Epochs)
	if r.Trainer == "torch" {
		fmt.Fprintf(&b, "  model: %s\n  image_size: %d\n  augment: true\n  data:\n    train: %s\n    validation: %s\n", r.Model, r.ImageSize, strconv.Quote(train), strconv.Quote(validation))
	} else {
		b.WriteString("  epoch_seconds: 0.1\n")
	}
	return b.String(), nil
}

// exitCode is how the atelier command ended.
type exitCode struct {
	what string
	code int
}

func (e *exitCode) Error() string { return fmt.Sprintf("%s ended with exit code %d", e.what, e.code) }

// call runs the atelier command as a person would: messages and progress go
// to the terminal, its output goes to out.
func (m *Main) call(ctx context.Context, out io.Writer, args ...string) error {
	fmt.Fprintf(m.Out, "$ atelier %s\n", strings.Join(args, " "))
	return m.run(ctx, out, m.Err, args...)
}

func (m *Main) run(ctx context.Context, out, messages io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, m.atelier(), args...)
	cmd.Stdout, cmd.Stderr = out, messages
	// A terminal itself, so that tables and messages are made for its width.
	if out == m.Out && m.Terminal.out != nil {
		cmd.Stdout = m.Terminal.out
	}
	if messages == m.Err && m.Terminal.err != nil {
		cmd.Stderr = m.Terminal.err
	}
	if m.cluster != nil {
		cmd.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(m.cluster.APIAddrs(), ","))
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("atelier %s: %w", args[0], ctx.Err())
	case errors.As(err, &exit):
		return &exitCode{"atelier " + strings.Join(args[:min(2, len(args))], " "), exit.ExitCode()}
	}
	return err
}

func (m *Main) sweep(ctx context.Context, method string, r recipe, data split) error {
	m.title("Sweep: " + method)
	text, err := r.spec(method, data.train, data.validation)
	if err != nil {
		return err
	}
	path := filepath.Join(m.Dir, method+".yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	var id bytes.Buffer
	if err := m.call(ctx, io.MultiWriter(&id, m.Out), "sweep", "submit", path, "--follow"); err != nil {
		return err
	}
	m.sweeps = append(m.sweeps, sweepRun{method, strings.TrimSpace(id.String())})
	return nil
}

type row struct {
	Trial  int64           `json:"trial"`
	Value  float64         `json:"value"`
	Epoch  int             `json:"epoch"`
	Params json.RawMessage `json:"params"`
}

// leaderboards prints each sweep's best trials from Redis, then the best of all.
func (m *Main) leaderboards(ctx context.Context) error {
	m.title("Leaderboards")
	var best *row
	var of sweepRun
	for _, s := range m.sweeps {
		fmt.Fprintf(m.Out, "\n%s\n", s.method)
		if err := m.call(ctx, m.Out, "leaderboard", s.id, "--top", "5", "--source", "redis"); err != nil {
			return err
		}
		var out bytes.Buffer
		if err := m.run(ctx, &out, io.Discard, "leaderboard", s.id, "--top", "1", "-o", "json"); err != nil {
			return err
		}
		var rows []row
		if err := json.Unmarshal(out.Bytes(), &rows); err != nil {
			return fmt.Errorf("leaderboard of %s: %w", s.id, err)
		}
		if len(rows) > 0 && (best == nil || rows[0].Value > best.Value) {
			best, of = &rows[0], s
		}
	}
	if best == nil {
		return errors.New("no sweep has a trial with a value")
	}
	m.prose("\nbest: %.1f %% validation accuracy, trial %d of %s (%s), epoch %d, %s\n", 100*best.Value, best.Trial, of.id, of.method, best.Epoch, pairs(best.Params))
	return nil
}

// pairs writes parameters for people, as lr=0.01 optimizer=sgd: numbers in four figures.
func pairs(raw json.RawMessage) string {
	members, err := setting.Members(raw)
	if err != nil {
		return string(raw)
	}
	var out []string
	for _, p := range members {
		value := setting.Value{Data: setting.Plain(p.Raw)}.Text()
		if x, ok := setting.Plain(p.Raw).(float64); ok {
			value = fmt.Sprintf("%.4g", x)
		}
		out = append(out, p.Key+"="+value)
	}
	return strings.Join(out, " ")
}

// reports writes each sweep's results, summary and charts beside the logs.
func (m *Main) reports(ctx context.Context) error {
	m.title("Reports")
	for _, s := range m.sweeps {
		dir := filepath.Join(m.Dir, "reports", s.method)
		if err := m.run(ctx, io.Discard, m.Err, "sweep", "report", s.id, "--out", dir); err != nil {
			return err
		}
		charts, err := filepath.Glob(filepath.Join(dir, "*.png"))
		if err != nil {
			return err
		}
		m.prose("%s: %s/diagnostics_summary.txt and %d charts, such as optimization_history.png\n", s.method, dir, len(charts))
	}
	return nil
}
