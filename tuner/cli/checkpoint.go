package cli

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// checkpointCommands find, fetch and name.
func (e *Env) checkpointCommands() *ucli.Command {
	g := group("checkpoint", "find, fetch and name stored models",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list a sweep's checkpoints", ArgsUsage: "SWEEP",
			Description: "Read as `atelier leaderboard` does: from Redis when the cluster has one, also while there is\n" +
				"no leader, else from its state.",
			Flags: append(append(listFlags(trial.StatusWords(), "the first `N`; 0 = all"),
				&ucli.Int64Flag{Name: "trial", Usage: "only of trial `N`"}), sourceFlags()...),
			Action: e.listCheckpoints}, 1, 1,
			"atelier checkpoint list s-k3v9q2ma", "atelier checkpoint list s-k3v9q2ma --trial 7 -o json",
			"atelier checkpoint list s-k3v9q2ma --state finished --sort metric --limit 3 -o name"),
		verb(&ucli.Command{Name: "pull", Usage: "fetch a checkpoint and verify its SHA-256", ArgsUsage: "SWEEP [TRIAL]",
			Description: "alias:NAME instead of SWEEP is what that alias names (see promote). Without TRIAL: of the\n" +
				"sweep's best trial. The checkpoint with the best objective value is taken, unless\n" +
				"--newest or --epoch is given. A location below the workers' shared folder\n" +
				"needs that folder here too (--shared).",
			Flags: []ucli.Flag{
				&ucli.StringFlag{Name: "to", Usage: "`FILE` or folder to write (default: SWEEP-TRIAL-eEPOCH.pth here)"},
				overwriteFlag(),
				&ucli.StringFlag{Name: "shared", EnvVars: []string{"ATELIER_SHARED"}, Usage: "the workers' shared `FOLDER`"},
				&ucli.BoolFlag{Name: "newest", Usage: "the one of the highest epoch"},
				&ucli.IntFlag{Name: "epoch", Usage: "the one of epoch `N`"},
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only the path written"},
			}, Action: e.pullCheckpoint}, 1, 2,
			"atelier checkpoint pull s-k3v9q2ma", "atelier checkpoint pull s-k3v9q2ma 7 --newest --to model.pth",
			"atelier checkpoint pull s-k3v9q2ma --shared /mnt/atelier", "atelier checkpoint pull alias:production --to model.pth"),
	)
	g.Subcommands = append(g.Subcommands, e.aliasCommands()...)
	return g
}

// listCheckpoints reads as leaderboard does: any coordinator answers from Redis, and where the
// answer came from is said on standard error. With --state it asks for the trials, too.
func (e *Env) listCheckpoints(c *ucli.Context) error {
	states, err := statesOf(c, trial.StatusWords())
	if err != nil {
		return err
	}
	api, from, err := e.boardReader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingArg(c, api)
	if err != nil {
		return err
	}
	var fresh client.Freshness
	return show(e, c, listing[trial.Checkpoint]{
		name: func(k trial.Checkpoint) string { return fmt.Sprintf("%s/%d/%d", k.Sweep, k.Trial, k.Epoch) },
		read: func(ctx context.Context) (all []trial.Checkpoint, err error) {
			if all, fresh, err = api.Checkpoints(ctx, id, c.Int64("trial"), from); err != nil || len(states) == 0 {
				return all, err
			}
			of, err := trialsIn(ctx, api, id, states)
			return slices.DeleteFunc(all, func(k trial.Checkpoint) bool { return !of[k.Trial] }), err
		},
		note: func([]trial.Checkpoint) { e.sayOrigin("", fresh) },
		shape: func(all []trial.Checkpoint) table {
			t := table{head: []string{"TRIAL", "EPOCH", "METRIC", "SIZE", "SHA-256", "WORKER", "AGE", "LOCATION"},
				wide: []string{"SHA-256", "LOCATION"}, flex: []string{"WORKER"}, moves: []string{"AGE"}}
			for _, x := range all {
				t.rows = append(t.rows, []string{count(x.Trial), count(int64(x.Epoch)), shortValue(x.Metric), bytesOf(x.Size), x.SHA256[:min(12, len(x.SHA256))], x.Worker, e.age(x.CreatedMS), string(x.Location)})
			}
			return t
		},
	})
}

// trialsIn are the numbers of a sweep's trials that are in one of some states.
func trialsIn(ctx context.Context, api *client.Client, id string, states []string) (map[int64]bool, error) {
	var which client.Which
	for _, s := range states {
		st, err := trial.ParseStatus(s)
		if err != nil {
			return nil, err
		}
		which.Status = append(which.Status, st)
	}
	out := map[int64]bool{}
	for t, err := range api.Trials(ctx, id, which) {
		if err != nil {
			return nil, err
		}
		out[t.Number] = true
	}
	return out, nil
}

// pullCheckpoint prints the path of a file whose SHA-256 is the one in the cluster's index: it is
// under its name only once it is verified. A file there that is the same is left alone; another one
// is replaced only where --overwrite says so, or where the verb has chosen the name itself, which
// says what it holds.
func (e *Env) pullCheckpoint(c *ucli.Context) error {
	if c.Bool("newest") && c.IsSet("epoch") {
		return usage("checkpoint pull: --newest and --epoch exclude one another")
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	word, numbered := trialWords(c)
	epoch := c.Int("epoch")
	// SWEEP/TRIAL/EPOCH is what -o name of the list prints.
	if parts := storedBy.FindStringSubmatch(c.Args().First()); c.NArg() == 1 && parts != nil && parts[3] != "" {
		word, numbered = parts[1], parts[2]
		if epoch, err = strconv.Atoi(parts[3]); err != nil || c.IsSet("epoch") || c.Bool("newest") {
			return usage("checkpoint pull: %s names an epoch: --epoch and --newest do not go with it", c.Args().First())
		}
	}
	number := int64(0)
	if numbered != "" {
		if number, err = setting.Whole(numbered); err != nil || number < 1 {
			return usage("checkpoint pull: trial %q: want a number from 1", numbered)
		}
	}
	got, ck, err := e.pulled(c, api, word, number, epoch)
	if err != nil {
		return err
	}
	if got.Kind == trial.Inference {
		e.say("sweep %s is an inference, not a tuning: this is its results (a tar of its output folder), not a model", got.ID)
	}
	to, named := e.path(c.String("to")), true
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		named = false // the name says what it is of: an earlier one may go
		ext := path.Ext(string(ck.Location))
		if ext == "" || len(ext) > 8 {
			ext = ".pth"
		}
		to = filepath.Join(to, fmt.Sprintf("%s-%d-e%d%s", ck.Sweep, ck.Trial, ck.Epoch, ext))
	}
	// The same bytes are not fetched again, so the verb can stand in a script that is run every
	// hour.
	there := sameFile(to, ck.Size, ck.SHA256)
	if !there {
		replaces, err := e.place(c, to, func() bool { return !named })
		if err != nil {
			return err
		}
		if err := e.files(c, api).Pull(c.Context, ck, to); err != nil {
			return fmt.Errorf("checkpoint of trial %d, epoch %d: %w", ck.Trial, ck.Epoch, err)
		}
		e.replaced(c, to, replaces)
	}
	if !c.Bool("quiet") {
		text := fmt.Sprintf("trial %d, epoch %d, %s, SHA-256 verified", ck.Trial, ck.Epoch, bytesOf(ck.Size))
		if ck.Metric != nil {
			text += fmt.Sprintf(", %s %s", got.Objective.Metric, shortValue(ck.Metric))
		}
		if there {
			text += "; it was there already"
		}
		e.say("%s", text)
	}
	_, err = fmt.Fprintln(e.Out, to)
	return err
}

// pulled is the checkpoint that the words of a pull name, and its sweep.
func (e *Env) pulled(c *ucli.Context, api *client.Client, word string, number int64, epoch int) (*trial.Sweep, *trial.Checkpoint, error) {
	if name, is := strings.CutPrefix(word, aliasPrefix); is {
		if number != 0 || epoch != 0 || c.Bool("newest") {
			return nil, nil, usage("checkpoint pull: %s names one checkpoint: TRIAL, --epoch and --newest do not go with it", word)
		}
		k, err := aliased(c.Context, api, name)
		if err != nil {
			return nil, nil, err
		}
		s, err := api.Sweep(c.Context, k.Sweep)
		return s, k, err
	}
	sweep, err := e.trainingID(c, api, word)
	if err != nil {
		return nil, nil, err
	}
	return findCheckpoint(c.Context, api, sweep, number, epoch, c.Bool("newest"))
}

// findCheckpoint is the checkpoint of an epoch, the newest, or the best (epoch 0)
// of a trial; 0 = the sweep's best trial. The sweep comes with an error, too, once
// it is known.
func findCheckpoint(ctx context.Context, api *client.Client, sweep string, number int64, epoch int, newest bool) (*trial.Sweep, *trial.Checkpoint, error) {
	s, err := api.Sweep(ctx, sweep)
	if err != nil {
		return nil, nil, err
	}
	if number == 0 {
		if s.Best == nil && s.Kind == trial.Inference {
			return s, nil, notFound("sweep %s is an inference, not a tuning: it has no model, and no results yet; `atelier trial show %s 1` shows the run", sweep, sweep)
		}
		if s.Best == nil {
			return s, nil, notFound("sweep %s has no trial with a value yet", sweep)
		}
		number = s.Best.Trial
	}
	list, _, err := api.Checkpoints(ctx, sweep, number, client.From{})
	if err != nil {
		return s, nil, err
	}
	k := choose(list, epoch, newest, s.Objective.Maximize)
	if k == nil {
		return s, nil, notFound("trial %d of sweep %s has no such checkpoint (it keeps %d)", number, sweep, len(list))
	}
	return s, k, nil
}

// choose picks the checkpoint of an epoch, the newest, or the best; nil if
// there is none.
func choose(all []trial.Checkpoint, epoch int, newest, maximize bool) *trial.Checkpoint {
	if epoch == 0 && !newest {
		return trial.Best(all, maximize)
	}
	var found *trial.Checkpoint
	for i, c := range all {
		if epoch > 0 && int(c.Epoch) != epoch {
			continue
		}
		if found == nil || c.Epoch > found.Epoch || c.Epoch == found.Epoch && c.Token > found.Token {
			found = &all[i]
		}
	}
	return found
}

// files reads what workers keep.
func (e *Env) files(c *ucli.Context, api *client.Client) client.Files {
	return api.Files(e.folder(c, "shared"))
}
