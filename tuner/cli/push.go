package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/tuner/models"

	ucli "github.com/urfave/cli/v2"
)

// pushCommand brings a model of this machine into a cluster. There it is the checkpoint of
// a sweep of one trial, so that all that finds, serves, keeps and deletes checkpoints
// does so with it.
func (e *Env) pushCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "push", Usage: "send a model file to a worker, which keeps it for the cluster", ArgsUsage: "FILE",
		Description: "FILE (.pth, .pt, .safetensors) becomes the checkpoint of a sweep of one trial, tagged pushed;\n" +
			"its name in the cluster, SWEEP/1/1, goes to standard output. With --as an alias names it.\n" +
			"A worker that is ready receives it, and its SHA-256 is compared. The sweep needs a value:\n" +
			"the accuracy that was measured beside the file, or --metric.",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "as", Usage: "let `ALIAS` name it (see promote)"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` of its sweep (default: the file's)"},
			&ucli.StringFlag{Name: "metric", Usage: "what was measured, `NAME=VALUE`, such as test_acc=0.93"},
			&ucli.StringFlag{Name: "worker", Usage: "send it to the worker `NAME`"},
		}, Action: e.push}, 1, 1,
		"atelier checkpoint push checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth --as production",
		"atelier checkpoint push model.safetensors --metric test_acc=0.93")
}

// push does nothing in the cluster before the file has been read whole.
func (e *Env) push(c *ucli.Context) error {
	path := e.path(c.Args().First())
	alias := strings.TrimPrefix(c.String("as"), aliasPrefix)
	if c.IsSet("as") && !trial.ValidAlias(alias) {
		return usage("checkpoint push: --as %q is not an alias: want 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit and not with s-", alias)
	}
	metric, value, err := e.measured(c, path)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.Args().First(), err)
	}
	sum := client.Sum{Size: size, SHA256: hex.EncodeToString(h.Sum(nil))}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	w, err := receiver(c.Context, api, c.String("worker"))
	if err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		if name = filepath.Base(path); trial.UnfitName(name) != "" {
			name = "file " + strings.TrimRight(name, "@")
		}
	}
	spec, err := json.Marshal(map[string]any{"name": name, "search_method": "grid_search", "objective": map[string]string{"metric": metric, "direction": "maximize"}, // JSON is YAML
		"trainer": "external", "seed": 1, "space": map[string]any{"file": map[string]any{"type": "categorical", "choices": []string{filepath.Base(path)}}}})
	if err != nil {
		return err
	}
	s, _, err := api.Submit(c.Context, client.Submission{Spec: string(spec), Name: "push"})
	if err != nil {
		return err
	}
	if err := e.send(c.Context, api, s.ID, w, f, sum, trial.Metric{Name: metric, Value: value}); err != nil {
		// What was made for the file goes again, as well as it can.
		clean, cancel := context.WithTimeout(context.WithoutCancel(c.Context), 5*time.Second)
		defer cancel()
		if _, e2 := api.Control(clean, client.NewRequestID(), s.ID, trial.ActionCancel); e2 == nil {
			api.Delete(clean, client.NewRequestID(), s.ID, false)
		}
		return fmt.Errorf("push %s: %w", c.Args().First(), err)
	}
	if _, err := api.Label(c.Context, client.NewRequestID(), s.ID, client.Labels{Add: []string{"pushed"}}); err != nil {
		return err
	}
	e.say("%s, %s, SHA-256 verified, is on worker %s", name, bytesOf(size), w.Name)
	if alias != "" {
		a, err := api.Promote(c.Context, client.NewRequestID(), client.Promotion{Alias: alias, Sweep: s.ID, Trial: 1, Epoch: 1, By: whoami()})
		if err != nil {
			return fmt.Errorf("it was pushed as %s/1/1, but not named: %w", s.ID, err)
		}
		e.say("%s", promoted(a))
	}
	_, err = fmt.Fprintf(e.Out, "%s/1/1\n", s.ID)
	return err
}

// measured is the value of a model: the one given, or the accuracy found beside its file.
func (e *Env) measured(c *ucli.Context, path string) (name string, value float64, err error) {
	found, err := (&models.Finder{Dir: e.Dir, Named: []string{path}}).Ranked()
	if err != nil {
		return "", 0, err
	}
	if len(found) != 1 {
		return "", 0, usage("checkpoint push: %s is not a model file (.pth, .pt or .safetensors)", c.Args().First())
	}
	if m := found[0]; m.Fault != "" {
		return "", 0, fmt.Errorf("checkpoint push: %s: %s", c.Args().First(), m.Fault)
	} else if !math.IsNaN(m.Accuracy) {
		name, value = map[string]string{models.Test: "test_acc", models.Validation: "val_acc"}[m.Measured], m.Accuracy
	}
	if given := c.String("metric"); given != "" {
		text := ""
		name, text, _ = strings.Cut(given, "=")
		if value, err = strconv.ParseFloat(text, 64); err != nil || name == "" || math.IsNaN(value) || math.IsInf(value, 0) {
			return "", 0, usage("checkpoint push: --metric %s: want NAME=VALUE, such as test_acc=0.93", given)
		}
	}
	if name == "" {
		return "", 0, usage("checkpoint push: no accuracy was measured beside %s: give what was measured with --metric, such as test_acc=0.93", c.Args().First())
	}
	return name, value, nil
}

// receiver is the worker that a file is sent to: the one named, or the first that is ready.
func receiver(ctx context.Context, api *client.Client, name string) (*trial.Worker, error) {
	all, err := api.Workers(ctx)
	if err != nil {
		return nil, err
	}
	for i, w := range all {
		if w.State == "ready" && (name == "" || w.Name == name) {
			return &all[i], nil
		}
	}
	if name != "" {
		return nil, notFound("no worker %s is ready", name)
	}
	return nil, notFound("no worker is ready to keep a file")
}

// unusual are letters that a file's name on a worker does not have.
var unusual = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// send has the file kept by a worker and written into the index.
func (e *Env) send(ctx context.Context, api *client.Client, sweep string, w *trial.Worker, f *os.File, sum client.Sum, m trial.Metric) error {
	got, status, err := api.AskTrial(ctx, client.Ask{RequestID: client.NewRequestID(), Sweep: sweep, Name: whoami(), Term: time.Hour, Wait: 20 * time.Second})
	if err != nil {
		return err
	}
	if got == nil {
		return fmt.Errorf("its sweep %s, which is %s, had no trial to give", sweep, status)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	ext := filepath.Ext(f.Name())
	base := strings.Trim(unusual.ReplaceAllString(strings.TrimSuffix(filepath.Base(f.Name()), ext), "-"), "-._")
	name := "model" + ext
	if base != "" {
		name = base[:min(len(base), 60)] + ext
	}
	b, sofar := bar{e: e, quiet: !e.Live}, int64(0)
	at, worker, err := api.PushFile(ctx, w.Address, trial.LeaseRef{Sweep: sweep, Trial: got.Trial, Token: got.Token}, name, sum, io.TeeReader(f, writer(func(data []byte) (int, error) {
		sofar += int64(len(data))
		b.draw(e.Now(), "sent "+bytesOf(sofar)+" of "+bytesOf(sum.Size))
		return len(data), nil
	})))
	b.clear()
	if err != nil {
		return err
	}
	value := trial.Number(m.Value)
	told, err := api.TellTrial(ctx, client.Tell{Sweep: sweep, Trial: got.Trial, Token: got.Token, Report: &trial.Report{Epoch: 1, Metrics: trial.Metrics{m}},
		Checkpoint: &trial.Checkpoint{Epoch: 1, Metric: &value, Size: sum.Size, SHA256: sum.SHA256, Location: at, Worker: worker}, Exit: trial.ExitFinished})
	if err == nil && told.Trial.Status != trial.Finished {
		err = errors.New("its trial is " + told.Trial.Status.String())
	}
	return err
}
