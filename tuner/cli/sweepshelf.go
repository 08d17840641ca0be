package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// shelfCommands take sweeps out of sight. What is deleted can be taken back for a day,
// unless --now is given.
func (e *Env) shelfCommands() []*ucli.Command {
	shelve := func(name, what string, a trial.Action, description string) *ucli.Command {
		return verb(&ucli.Command{Name: name, Usage: what, ArgsUsage: "SWEEP", Description: description,
			Action: func(c *ucli.Context) error { return e.shelve(c, a) }}, 1, 1, "atelier sweep "+name+" s-k3v9q2ma")
	}
	return []*ucli.Command{
		shelve("archive", "leave a sweep out of lists", trial.ActionArchive, "Everything else works as before; sweep list --archived shows it."),
		shelve("unarchive", "list an archived sweep again", trial.ActionUnarchive, ""),
		verb(&ucli.Command{Name: "delete", Aliases: []string{"rm"}, Usage: "delete a sweep that has ended", ArgsUsage: "SWEEP",
			Description: "Its trials, metrics and checkpoints are kept for 24 hours, in which sweep undelete takes\n" +
				"the deletion back; sweep list --deleted shows it until then. With --now they go at once,\n" +
				"for good. A terminal is asked; without one --yes is needed.",
			Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
				&ucli.BoolFlag{Name: "force", Usage: "also where an alias names a checkpoint of it; the alias goes with the sweep"},
				&ucli.BoolFlag{Name: "now", Usage: "remove trials and checkpoints at once, for good"}}, Action: e.deleteSweep}, 1, 1,
			"atelier sweep delete s-k3v9q2ma", "atelier sweep delete s-k3v9q2ma --now --yes"),
		shelve("undelete", "take the deletion of a sweep back", trial.ActionUndelete, "Within 24 hours of sweep delete. Here @ is the newest sweep that is deleted."),
	}
}

// shelve archives a sweep, or takes that or a deletion back.
func (e *Env) shelve(c *ucli.Context, a trial.Action) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	among := anySweep
	if a == trial.ActionUndelete {
		// @ is the newest that was deleted; what is not deleted is found by id and name, to be answered.
		among.Deleted, among.newest = true, func(s trial.Sweep) bool { return s.DeletedMS != 0 }
	}
	id, err := e.sweepAmong(c, api, c.Args().First(), among)
	if err != nil {
		return err
	}
	s, err := api.Control(c.Context, client.NewRequestID(), id, a)
	if err != nil {
		return err
	}
	e.say("sweep %s is %s", s.ID, stateOf(*s))
	return nil
}

// stateOf is a sweep's state, and whether lists leave it out.
func stateOf(s trial.Sweep) string {
	switch {
	case s.DeletedMS != 0:
		return s.Status.String() + ", deleted"
	case s.ArchivedMS != 0:
		return s.Status.String() + ", archived"
	}
	return s.Status.String()
}

// deleteSweep prints what goes and until when it can be taken back, before it does anything.
func (e *Env) deleteSweep(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	now := c.Bool("now")
	among := anySweep.strictly()
	among.Deleted = now
	id, err := e.sweepAmong(c, api, c.Args().First(), among)
	if err != nil {
		return err
	}
	s, err := api.Sweep(c.Context, id)
	if err != nil {
		return err
	}
	switch {
	case !s.Status.Over():
		return &exitError{code: client.ExitError, text: fmt.Sprintf("sweep %s is %s: only a sweep that has ended can be deleted; end it with `atelier sweep cancel %s` first", s.ID, s.Status, s.ID)}
	case s.DeletedMS != 0 && !now:
		e.say("sweep %s is deleted already; it goes for good at %s", s.ID, clock(s.PurgeMS))
		return nil
	}
	if !c.Bool("force") {
		if err := e.unnamed(c.Context, api, id); err != nil {
			return err
		}
	}
	e.say("%s: %s", strings.TrimSpace(s.ID+" "+s.Name), e.holds(c.Context, api, s))
	question := "Delete it? `atelier sweep undelete` can take that back for 24 hours."
	if now {
		question = "Delete it for good? This cannot be taken back."
	}
	if err := e.sure(c, "sweep delete", question); err != nil {
		return err
	}
	if s.DeletedMS == 0 {
		if s, err = api.Delete(c.Context, client.NewRequestID(), id, c.Bool("force")); err != nil {
			return err
		}
	}
	if now {
		if err := api.Purge(c.Context, id); err != nil {
			return err
		}
		e.say("sweep %s is deleted; workers remove its files within 15 minutes", id)
		return nil
	}
	e.say("sweep %s is deleted; until %s `atelier sweep undelete %s` takes that back", id, clock(s.PurgeMS), id)
	return nil
}

// unnamed refuses a sweep of which an alias names a checkpoint.
func (e *Env) unnamed(ctx context.Context, api *client.Client, id string) error {
	all, err := api.Aliases(ctx)
	if client.CodeOf(err) == client.CodeUnimplemented {
		return nil
	}
	for _, a := range all {
		if a.Places[0].Sweep == id {
			return &exitError{code: client.ExitError, text: fmt.Sprintf("the alias %s names %s; move or remove it first (atelier checkpoint alias remove %s), or delete with --force, which removes the alias with the sweep", a.Name, placeText(a.Places[0]), a.Name)}
		}
	}
	return err
}

// holds is what goes with a sweep.
func (e *Env) holds(ctx context.Context, api *client.Client, s *trial.Sweep) string {
	text := fmt.Sprintf("%s, %s", counted(int(s.Counts.Proposed), "trial"), counted(int(s.Counts.Reports), "report"))
	list, _, err := api.Checkpoints(ctx, s.ID, 0, client.From{Source: "state"})
	if err != nil {
		return text + ", checkpoints of " + bytesOf(s.StoredBytes)
	}
	return fmt.Sprintf("%s, %s of %s", text, counted(len(list), "checkpoint"), bytesOf(s.StoredBytes))
}

// sure asks on a terminal, where the answer is no unless it is yes; elsewhere --yes has
// to be given.
func (e *Env) sure(c *ucli.Context, verb, question string) error {
	if c.Bool("yes") {
		return nil
	}
	if !e.Ask {
		return usage("%s: give --yes to confirm", verb)
	}
	q := &questions{e: e, in: bufio.NewReader(e.In), verb: verb, such: "--yes"}
	answer, err := q.ask(c.Context, question+" [y/N]: ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return &exitError{code: client.ExitError, text: "nothing was deleted"}
	}
	return nil
}
