package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/files"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial/wire"

	"connectrpc.com/connect"
	ucli "github.com/urfave/cli/v2"
)

func (e *Env) checkpointCommands() *ucli.Command {
	return group("checkpoint", "find and fetch stored models",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list a sweep's checkpoints", ArgsUsage: "SWEEP",
			Description: "Read as `atelier leaderboard` does: from Redis when the cluster has one, also while there is\n" +
				"no leader, else from its state.",
			Flags: append([]ucli.Flag{outputFlag(),
				&ucli.Int64Flag{Name: "trial", Usage: "only of trial `N`"}}, sourceFlags()...),
			Action: e.listCheckpoints}, 1, 1,
			"atelier checkpoint list s-k3v9q2ma", "atelier checkpoint list s-k3v9q2ma --trial 7 -o json"),
		verb(&ucli.Command{Name: "pull", Usage: "fetch a checkpoint and verify its SHA-256", ArgsUsage: "SWEEP [TRIAL]",
			Description: "Without TRIAL: of the sweep's best trial. The checkpoint with the best objective value\n" +
				"is taken unless --newest or --epoch says otherwise. A location below the workers'\n" +
				"shared folder needs that folder here too (--shared).",
			Flags: []ucli.Flag{
				&ucli.StringFlag{Name: "to", Usage: "`FILE` or folder to write (default: SWEEP-TRIAL-eEPOCH.pth here)"},
				overwriteFlag(),
				&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`"},
				&ucli.BoolFlag{Name: "newest", Usage: "the one of the highest epoch"},
				&ucli.IntFlag{Name: "epoch", Usage: "the one of epoch `N`"},
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only the path written"},
			}, Action: e.pullCheckpoint}, 1, 2,
			"atelier checkpoint pull s-k3v9q2ma", "atelier checkpoint pull s-k3v9q2ma 7 --newest --to model.pth",
			"atelier checkpoint pull s-k3v9q2ma --shared /mnt/atelier"),
	)
}

func (e *Env) listCheckpoints(c *ucli.Context) error {
	api, source, err := e.boardReader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Sweeps.ListCheckpoints(c.Context, connect.NewRequest(&atelierv1.ListCheckpointsRequest{
		Id: c.Args().First(), Trial: c.Int64("trial"), Source: source, AtLeast: c.Uint64("at-least")}))
	if err != nil {
		return err
	}
	records := []checkpointRecord{}
	for _, x := range r.Msg.GetCheckpoints() {
		records = append(records, checkpointOf(x))
	}
	e.sayOrigin("", r.Msg)
	return e.print(c, records, func() table {
		t := table{head: []string{"TRIAL", "EPOCH", "METRIC", "SIZE", "SHA-256", "WORKER", "AGE", "LOCATION"}}
		for _, x := range records {
			t.rows = append(t.rows, []string{count(x.Trial), count(int64(x.Epoch)), shortValue(x.Metric), bytesOf(x.Size), x.SHA256[:min(12, len(x.SHA256))], x.Worker, e.age(x.CreatedMS), x.Location})
		}
		return t
	})
}

func (e *Env) pullCheckpoint(c *ucli.Context) error {
	if c.Bool("newest") && c.IsSet("epoch") {
		return usage("checkpoint pull: --newest and --epoch exclude one another")
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	sweep := c.Args().First()
	got, err := api.Sweeps.GetSweep(c.Context, connect.NewRequest(&atelierv1.GetSweepRequest{Id: sweep}))
	if err != nil {
		return err
	}
	trial := got.Msg.GetSweep().GetBest().GetNumber()
	if c.NArg() == 2 {
		if _, trial, err = trialArg(c); err != nil {
			return err
		}
	} else if trial == 0 {
		return notFound("sweep %s has no trial with a value yet", sweep)
	}
	r, err := api.Sweeps.ListCheckpoints(c.Context, connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sweep, Trial: trial}))
	if err != nil {
		return err
	}
	maximize := got.Msg.GetSweep().GetObjective().GetDirection() == atelierv1.Direction_DIRECTION_MAXIMIZE
	ck := choose(r.Msg.GetCheckpoints(), c.Int("epoch"), c.Bool("newest"), maximize)
	if ck == nil {
		return notFound("trial %d of sweep %s has no such checkpoint (it keeps %d)", trial, sweep, len(r.Msg.GetCheckpoints()))
	}
	to, named := e.path(c.String("to")), true
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		named = false // the name says what it is of: an earlier one may go
		ext := path.Ext(ck.GetLocation())
		if ext == "" || len(ext) > 8 {
			ext = ".pth"
		}
		to = filepath.Join(to, fmt.Sprintf("%s-%d-e%d%s", sweep, trial, ck.GetEpoch(), ext))
	}
	there := sameFile(to, ck.GetSize(), ck.GetSha256())
	if !there {
		replaces, err := e.place(c, to, func() bool { return !named })
		if err != nil {
			return err
		}
		if err := pull(c.Context, ck, e.folder(c, "shared"), to); err != nil {
			return fmt.Errorf("checkpoint of trial %d, epoch %d: %w", trial, ck.GetEpoch(), err)
		}
		e.replaced(c, to, replaces)
	}
	if !c.Bool("quiet") {
		text := fmt.Sprintf("trial %d, epoch %d, %s, SHA-256 verified", trial, ck.GetEpoch(), bytesOf(ck.GetSize()))
		if ck.GetHasMetric() {
			text += fmt.Sprintf(", %s %s", got.Msg.GetSweep().GetObjective().GetMetric(), short(ck.GetMetric()))
		}
		if there {
			text += "; it was there already"
		}
		e.say("%s", text)
	}
	_, err = fmt.Fprintln(e.Out, to)
	return err
}

// choose picks the checkpoint of an epoch, the newest, or the best; nil if
// there is none.
func choose(all []*atelierv1.Checkpoint, epoch int, newest, maximize bool) *atelierv1.Checkpoint {
	if epoch == 0 && !newest {
		return wire.Best(all, maximize)
	}
	var found *atelierv1.Checkpoint
	for _, c := range all {
		if epoch > 0 && int(c.GetEpoch()) != epoch {
			continue
		}
		if found == nil || c.GetEpoch() > found.GetEpoch() || c.GetEpoch() == found.GetEpoch() && c.GetToken() > found.GetToken() {
			found = c
		}
	}
	return found
}

// pull writes a checkpoint to a file: whole and verified, or not at all.
func pull(ctx context.Context, c *atelierv1.Checkpoint, shared, to string) error {
	want, err := hex.DecodeString(c.GetSha256())
	if err != nil || len(want) != sha256.Size {
		return fmt.Errorf("the index holds no usable SHA-256 (%q)", c.GetSha256())
	}
	from, err := openLocation(ctx, c.GetLocation(), shared)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp, err := files.Create(to, 0o644)
	if err != nil {
		return err
	}
	defer tmp.Abort()
	h := sha256.New()
	// One byte more than promised tells a file that is too long.
	n, err := io.Copy(io.MultiWriter(tmp, h), io.LimitReader(from, c.GetSize()+1))
	if err != nil {
		return fmt.Errorf("read %s after %s: %w", c.GetLocation(), bytesOf(n), err)
	}
	if n != c.GetSize() {
		return fmt.Errorf("%s has %s%d bytes, the index says %d: nothing was written", c.GetLocation(), map[bool]string{true: "more than ", false: ""}[n > c.GetSize()], min(n, c.GetSize()), c.GetSize())
	}
	if sum := h.Sum(nil); string(sum) != string(want) {
		return fmt.Errorf("%s has SHA-256 %x, the index says %s: nothing was written", c.GetLocation(), sum, c.GetSha256())
	}
	return tmp.Commit()
}

func openLocation(ctx context.Context, location, shared string) (io.ReadCloser, error) {
	if rel, ok := strings.CutPrefix(location, "shared:"); ok {
		if shared == "" {
			return nil, &exitError{client.ExitUsage, fmt.Sprintf("it lies in the workers' shared folder (%s): say where that is here with --shared FOLDER", rel)}
		}
		root, err := os.OpenRoot(shared)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := root.Open(filepath.FromSlash(rel)) // refuses to leave the folder
		if errors.Is(err, os.ErrNotExist) {
			return nil, notFound("%s does not exist", filepath.Join(shared, rel))
		}
		return f, err
	}
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("cannot fetch from location %q", location)
	}
	body, _, err := fetch(ctx, location)
	return body, err
}

var patient = &http.Client{Transport: &http.Transport{Proxy: nil, ResponseHeaderTimeout: 15 * time.Second, DisableCompression: true}}

// fetch reads a file of a worker.
func fetch(ctx context.Context, location string) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := patient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return nil, 0, notFound("%s: no such file on that worker", location)
		}
		return nil, 0, fmt.Errorf("%s: %s: %s", location, resp.Status, strings.TrimSpace(string(text)))
	}
	return resp.Body, resp.ContentLength, nil
}
