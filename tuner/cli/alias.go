package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/user"
	"strings"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// An alias is named with a word in front wherever a checkpoint is asked for: a bare word is
// a file or a sweep, or may become one.
const aliasPrefix = "alias:"

// aliasCommands name checkpoints.
func (e *Env) aliasCommands() []*ucli.Command {
	return []*ucli.Command{
		e.pushCommand(),
		verb(&ucli.Command{Name: "promote", Usage: "let an alias name a checkpoint", ArgsUsage: "SWEEP[/TRIAL[/EPOCH]] ALIAS",
			Description: "Without TRIAL: of the sweep's best trial; without EPOCH: its best checkpoint. The alias moves\n" +
				"in one step and remembers what it named before. What it names, and what it named last, is\n" +
				"kept, whatever the sweep's budget of checkpoints is. alias:ALIAS names the checkpoint in\n" +
				"checkpoint pull, infer and serve.",
			Flags: []ucli.Flag{&ucli.StringFlag{Name: "by", Usage: "`WHO` promotes it, for the history (default: user@host)"}}, Action: e.promote}, 2, 2,
			"atelier checkpoint promote s-k3v9q2ma production", "atelier checkpoint promote s-k3v9q2ma/7/12 staging"),
		group("alias", "list and remove aliases of checkpoints",
			verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list the aliases of checkpoints", Flags: []ucli.Flag{outputFlag()}, Action: e.listAliases}, 0, 0,
				"atelier checkpoint alias list"),
			verb(&ucli.Command{Name: "show", Usage: "show an alias and what it named before", ArgsUsage: "ALIAS", Flags: []ucli.Flag{outputFlag()}, Action: e.showAlias}, 1, 1,
				"atelier checkpoint alias show production"),
			verb(&ucli.Command{Name: "remove", Aliases: []string{"rm"}, Usage: "remove an alias", ArgsUsage: "ALIAS",
				Description: "The checkpoint stays as long as its trial keeps it: its newest and its best.", Action: e.removeAlias}, 1, 1,
				"atelier checkpoint alias remove staging")),
	}
}

// promote prints the ids of what was promoted: a name may be another sweep's tomorrow.
func (e *Env) promote(c *ucli.Context) error {
	parts := storedBy.FindStringSubmatch(c.Args().First())
	if parts == nil {
		return usage("checkpoint promote: %q: want SWEEP, SWEEP/TRIAL or SWEEP/TRIAL/EPOCH", c.Args().First())
	}
	number, epoch := int64(0), int64(0)
	for text, n := range map[string]*int64{parts[2]: &number, parts[3]: &epoch} {
		if text == "" {
			continue
		}
		var err error
		if *n, err = setting.Whole(text); err != nil || *n != int64(int32(*n)) && n == &epoch {
			return usage("checkpoint promote: %q: want a number from 1", text)
		}
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.trainingID(c, api, parts[1])
	if err != nil {
		return err
	}
	a, err := api.Promote(c.Context, client.NewRequestID(), client.Promotion{Alias: strings.TrimPrefix(c.Args().Get(1), aliasPrefix), Sweep: id, Trial: number, Epoch: int32(epoch), By: cmp.Or(c.String("by"), whoami())})
	if err != nil {
		return err
	}
	e.say("%s", promoted(a))
	return nil
}

// promoted tells what an alias names now, and before.
func promoted(a *trial.Alias) string {
	if a == nil || len(a.Places) == 0 {
		return "the alias was moved on meanwhile"
	}
	text := fmt.Sprintf("%s%s is %s, %s", aliasPrefix, a.Name, placeText(a.Places[0]), bytesOf(a.Places[0].Size))
	if len(a.Places) > 1 {
		text += "; it was " + placeText(a.Places[1])
	}
	return text
}

// placeText is a checkpoint as it is named to promote it again.
func placeText(p trial.AliasPlace) string { return fmt.Sprintf("%s/%d/%d", p.Sweep, p.Trial, p.Epoch) }

// whoami is the person at this machine, for the alias's history.
func whoami() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, _ := os.Hostname()
	return strings.Trim(name+"@"+host, "@")
}

func (e *Env) listAliases(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	all, err := api.Aliases(c.Context)
	if err != nil {
		return err
	}
	return e.print(c, all, func() table {
		t := table{head: []string{"ALIAS", "CHECKPOINT", "SIZE", "SHA-256", "BY", "AGE", "BEFORE"}}
		for _, a := range all {
			now, before := a.Places[0], "-"
			if len(a.Places) > 1 {
				before = placeText(a.Places[1])
			}
			t.rows = append(t.rows, []string{a.Name, placeText(now), sizeOf(a), now.SHA256[:min(12, len(now.SHA256))], dash(now.By), e.age(now.SinceMS), before})
		}
		return t
	})
}

// sizeOf is that of an alias's file, or that it is gone.
func sizeOf(a trial.Alias) string {
	if a.Location == "" {
		return "gone"
	}
	return bytesOf(a.Places[0].Size)
}

func (e *Env) showAlias(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	a, err := api.Alias(c.Context, strings.TrimPrefix(c.Args().First(), aliasPrefix))
	if err != nil {
		return err
	}
	return e.print(c, a, func() table {
		t := table{head: []string{"SINCE", "CHECKPOINT", "SIZE", "SHA-256", "BY"}}
		for _, p := range a.Places {
			t.rows = append(t.rows, []string{clock(p.SinceMS), placeText(p), bytesOf(p.Size), p.SHA256[:min(12, len(p.SHA256))], dash(p.By)})
		}
		return t
	})
}

func (e *Env) removeAlias(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	name := strings.TrimPrefix(c.Args().First(), aliasPrefix)
	was, err := api.RemoveAlias(c.Context, client.NewRequestID(), name, whoami())
	switch {
	case err != nil:
		return err
	case was == nil:
		return notFound("no alias %q", name)
	}
	e.say("alias %s is removed; it was %s", name, placeText(was.Places[0]))
	return nil
}

// aliased finds the very checkpoint that an alias names.
func aliased(ctx context.Context, api *client.Client, name string) (*trial.Checkpoint, error) {
	a, err := api.Alias(ctx, name)
	if err != nil {
		return nil, err
	}
	p := a.Places[0]
	list, err := api.IndexedCheckpoints(ctx, p.Sweep, p.Trial)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Epoch == p.Epoch && list[i].SHA256 == p.SHA256 {
			return &list[i], nil
		}
	}
	return nil, notFound("the file of alias %s, %s, is gone", name, placeText(p))
}
