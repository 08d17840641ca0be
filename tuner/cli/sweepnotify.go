package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"atelier/common/client"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// aboutNotify is what people have to know before they give an address.
const aboutNotify = "A JSON document is posted with a line for people in `text`, so that a Slack webhook shows it.\n" +
	"An attempt that fails is repeated for an hour, also by a new leader; a post may arrive twice,\n" +
	"with the same `delivery`. The coordinators post: URL has to be reachable from their machines.\n" +
	"It is kept in the cluster's state; lists, logs and errors show scheme and host alone."

// notifyFlags are those of submit.
func notifyFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "notify", Usage: "post the sweep's end to `URL` (see sweep notify; default: ATELIER_NOTIFY, which no list of processes shows)"},
		notifyOnFlag(),
	}
}

func notifyOnFlag() ucli.Flag {
	return &ucli.StringSliceFlag{Name: "notify-on", Aliases: []string{"on"}, Usage: "post only these `STATES`: finished, stopped, cancelled, failed (default: all)"}
}

func (e *Env) notifyCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "notify", Usage: "post a sweep's end to a URL", ArgsUsage: "SWEEP [URL]",
		Description: aboutNotify + "\nURL - is read from standard input, so that no list of processes shows it. Of a sweep that has\n" +
			"ended the end is posted at once. Without URL it prints whether it was delivered.",
		Flags: []ucli.Flag{notifyOnFlag(), &ucli.BoolFlag{Name: "remove", Usage: "post nowhere"}}, Action: e.notifySweep}, 1, 2,
		"atelier sweep notify s-k3v9q2ma https://hooks.slack.com/services/T0/B0/x", "atelier sweep notify s-k3v9q2ma - --on failed < hook.txt",
		"atelier sweep notify s-k3v9q2ma", "atelier sweep notify s-k3v9q2ma --remove")
}

// endsOf reads --notify-on.
func endsOf(c *ucli.Context) (on []trial.SweepStatus, err error) {
	for _, text := range c.StringSlice("notify-on") {
		for word := range strings.SplitSeq(text, ",") {
			s, err := trial.ParseSweepStatus(strings.TrimSpace(word))
			if err != nil || !s.Over() {
				return nil, usage("--notify-on %s: want finished, stopped, cancelled or failed, separated by commas", text)
			}
			on = append(on, s)
		}
	}
	return on, nil
}

// notification is what the flags of submit ask for; nil for nothing.
func (e *Env) notification(c *ucli.Context) (*trial.Notification, error) {
	on, err := endsOf(c)
	if url := strings.TrimSpace(cmp.Or(c.String("notify"), e.environ("ATELIER_NOTIFY"))); url != "" && err == nil {
		return &trial.Notification{URL: url, On: on}, nil
	}
	if err == nil && c.IsSet("notify-on") {
		err = usage("sweep submit: --notify-on goes with --notify URL")
	}
	return nil, err
}

func (e *Env) notifySweep(c *ucli.Context) error {
	on, err := endsOf(c)
	if err != nil {
		return err
	}
	url, remove := c.Args().Get(1), c.Bool("remove")
	switch {
	case url == "-":
		b, err := io.ReadAll(io.LimitReader(e.In, 64<<10))
		if err != nil {
			return fmt.Errorf("read the URL: %w", err)
		}
		if url = strings.TrimSpace(string(b)); url == "" {
			return usage("sweep notify: standard input has no URL")
		}
	case remove && url != "":
		return usage("sweep notify: --remove takes no URL")
	case url == "" && c.NArg() == 2:
		return usage("sweep notify: the URL is empty; --remove posts nowhere")
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
	var s *trial.Sweep
	if url == "" && !remove {
		s, err = api.Sweep(c.Context, id)
	} else {
		s, err = api.Notify(c.Context, client.NewRequestID(), id, url, on)
	}
	if err != nil {
		return err
	}
	e.say("sweep %s: %s", s.ID, notifyText(s))
	return nil
}

// notifyText is where a sweep's end is posted and what became of it.
func notifyText(s *trial.Sweep) string {
	n := s.Notify
	if n == nil {
		return "its end is posted nowhere"
	}
	var on []string
	for _, end := range n.On {
		on = append(on, end.String())
	}
	text := fmt.Sprintf("its end (%s) is posted to %s", cmp.Or(strings.Join(on, ", "), "any"), n.URL)
	if n.Attempts == 0 || n.EndMS != s.EndedMS {
		return text
	}
	switch attempts := counted(int(n.Attempts), "attempt"); {
	case n.Error == "":
		return fmt.Sprintf("%s: delivered at %s, %s", text, clock(n.LastMS), attempts)
	case n.Done:
		return fmt.Sprintf("%s: given up at %s after %s: %s", text, clock(n.LastMS), attempts, n.Error)
	default:
		return fmt.Sprintf("%s: not delivered after %s, it is tried again: %s", text, attempts, n.Error)
	}
}
