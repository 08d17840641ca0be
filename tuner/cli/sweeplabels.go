package cli

import (
	"fmt"
	"io"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// labelCommands change what people call a sweep and write beside it. Nothing in the
// cluster depends on it.
func (e *Env) labelCommands() []*ucli.Command {
	return []*ucli.Command{
		e.notifyCommand(),
		verb(&ucli.Command{Name: "rename", Usage: "give a sweep another name", ArgsUsage: "SWEEP NAME",
			Description: "The empty NAME, '', is that of the spec again. The id stays. A name does not begin with s-,\nnor end with @ or @NUMBER.", Action: e.renameSweep}, 2, 2,
			"atelier sweep rename s-k3v9q2ma 'facades, night'"),
		verb(&ucli.Command{Name: "tag", Usage: "add tags to a sweep, or remove them", ArgsUsage: "SWEEP [TAG ...]",
			Description: "A tag is one word, of any letters. Tags are shown by sweep show and sweep list -o json.",
			Flags:       []ucli.Flag{&ucli.StringSliceFlag{Name: "remove", Usage: "remove `TAG` (may be given again)"}}, Action: e.tagSweep}, 1, -1,
			"atelier sweep tag s-k3v9q2ma baseline paper", "atelier sweep tag s-k3v9q2ma --remove paper"),
		verb(&ucli.Command{Name: "note", Usage: "write a note on a sweep, or print it", ArgsUsage: "SWEEP [TEXT]",
			Description: "TEXT - is read from standard input; the empty TEXT, '', removes the note. Without TEXT\nthe note is printed.", Action: e.noteSweep}, 1, 2,
			"atelier sweep note s-k3v9q2ma 'the learning rate was too high'", "atelier sweep note s-k3v9q2ma - < notes.md", "atelier sweep note s-k3v9q2ma"),
	}
}

// label changes a sweep's labels and prints what they are then.
func (e *Env) label(c *ucli.Context, what func(*trial.Sweep) string, l client.Labels) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Label(c.Context, client.NewRequestID(), id, l)
	if err != nil {
		return err
	}
	e.say("sweep %s: %s", s.ID, what(s))
	return nil
}

func (e *Env) renameSweep(c *ucli.Context) error {
	return e.label(c, func(s *trial.Sweep) string { return "its name is " + dash(s.Name) }, client.Labels{Name: new(c.Args().Get(1))})
}

func (e *Env) tagSweep(c *ucli.Context) error {
	l := client.Labels{Add: c.Args().Tail(), Remove: c.StringSlice("remove")}
	if len(l.Add)+len(l.Remove) == 0 {
		return usage("sweep tag: give the tags to add, or --remove TAG")
	}
	return e.label(c, func(s *trial.Sweep) string {
		if len(s.Tags) == 0 {
			return "no tags"
		}
		return "tags " + strings.Join(s.Tags, ", ")
	}, l)
}

// noteSweep writes the note, or prints it as it is, for a pipe or an editor.
func (e *Env) noteSweep(c *ucli.Context) error {
	if c.NArg() == 2 {
		text := c.Args().Get(1)
		if text == "-" {
			b, err := io.ReadAll(io.LimitReader(e.In, 1<<20))
			if err != nil {
				return fmt.Errorf("read the note: %w", err)
			}
			text = strings.TrimRight(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n")
		}
		return e.label(c, func(s *trial.Sweep) string {
			if s.UserNote == "" {
				return "no note"
			}
			return "note of " + counted(strings.Count(s.UserNote, "\n")+1, "line")
		}, client.Labels{Note: &text})
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id, err := e.sweepArg(c, api)
	if err != nil {
		return err
	}
	s, err := api.Sweep(c.Context, id)
	if err != nil || s.UserNote == "" {
		return err
	}
	_, err = fmt.Fprintln(e.Out, s.UserNote)
	return err
}
