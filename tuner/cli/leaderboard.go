package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/nearest"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// leaderboardCommand is a verb of its own, not of sweep's: it is what people type most.
func (e *Env) leaderboardCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "leaderboard", Aliases: []string{"lb"}, Usage: "a sweep's trials by best objective value", ArgsUsage: "SWEEP",
		Description: "Read from Redis when the cluster has one, else from its state; the source and its log index\n" +
			"go to standard error. Redis may be some moments behind, and also answers while there is no\n" +
			"leader; --source state asks the leader.",
		Flags: append(append(listFlags(trial.StatusWords(), "the first `N` of what is left; 0 = all"),
			&ucli.IntFlag{Name: "top", Aliases: []string{"n"}, Usage: "the best `N`; 0 = all"},
			&ucli.StringFlag{Name: "metrics", Usage: "show these further `METRICS`, such as val_acc,train_loss; none = none (default: val_acc where it is reported)"},
			&ucli.BoolFlag{Name: "pareto", Usage: "only trials that no other improves upon in all objectives"},
		), sourceFlags()...), Action: e.leaderboard}, 1, 1,
		"atelier leaderboard s-k3v9q2ma --top 10",
		"atelier leaderboard @ --metrics val_acc,train_loss,seconds",
		"atelier leaderboard s-k3v9q2ma -o json | jq -r '.[0].checkpoint'",
		"atelier leaderboard s-k3v9q2ma -o csv > trials.csv")
}

// leaderboard prints the ranking; what was asked for in one line, where it came from and which
// index it reflects go to standard error, so that answers from Redis and from the state can be
// compared byte by byte.
func (e *Env) leaderboard(c *ucli.Context) error {
	if c.Int("top") < 0 {
		return usage("--top %d: want 0 (all) or more", c.Int("top"))
	}
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
	var board client.Board
	var further []string
	return show(e, c, listing[trial.Row]{
		name: func(r trial.Row) string { return fmt.Sprintf("%s/%d", id, r.Trial) },
		read: func(ctx context.Context) (rows []trial.Row, err error) {
			board, err = api.Leaderboard(ctx, id, c.Int("top"), c.Bool("pareto"), from)
			if len(states) > 0 {
				return slices.DeleteFunc(board.Rows, func(r trial.Row) bool { return !slices.Contains(states, r.Status.String()) }), err
			}
			return board.Rows, err
		},
		note: func(rows []trial.Row) {
			// To standard error: from where, of which index, how old.
			e.sayOrigin(board.Objectives[0].Direction()+" "+board.Objectives[0].Metric+", ", board.Freshness)
			var other []int64
			for _, row := range rows {
				if row.OtherData {
					other = append(other, row.Trial)
				}
			}
			slices.Sort(other)
			if text := trial.OtherDataText(other); text != "" {
				e.say("warning: %s", text)
			}
		},
		check: func(rows []trial.Row) error {
			further, err = furtherMetrics(c, board.Objectives, rows)
			return err
		},
		shape: func(rows []trial.Row) table { return boardTable(board.Objectives, further, rows) },
	})
}

// furtherMetrics are those shown beside the objectives: those of --metrics, else the
// accuracy beside a loss and the loss beside an accuracy, where they are reported.
func furtherMetrics(c *ucli.Context, objectives []trial.Objective, rows []trial.Row) (out []string, err error) {
	known := map[string]bool{}
	for _, r := range rows {
		for name := range r.Metrics {
			known[name] = true
		}
	}
	shown := func(name string) bool {
		return slices.ContainsFunc(objectives, func(o trial.Objective) bool { return o.Metric == name })
	}
	if !c.IsSet("metrics") {
		for _, name := range []string{"val_acc", "val_loss"} {
			if known[name] && !shown(name) && len(out) == 0 {
				out = append(out, name)
			}
		}
		return out, nil
	}
	for name := range strings.SplitSeq(c.String("metrics"), ",") {
		switch name = strings.TrimSpace(name); {
		case name == "" || name == "none" || shown(name) || slices.Contains(out, name):
		case len(known) > 0 && !known[name]:
			names := slices.Sorted(maps.Keys(known))
			if near, ok := nearest.Close(name, names); ok {
				return nil, usage("--metrics: no trial here reports %q; did you mean %q?", name, near)
			}
			return nil, usage("--metrics: no trial here reports %q; they report %s", name, strings.Join(names, ", "))
		default:
			out = append(out, name)
		}
	}
	return out, nil
}

// metricCell is a metric of a record, - where it was not reported.
func metricCell(of map[string]trial.Number, name string) string {
	if v, ok := of[name]; ok && !math.IsNaN(float64(v)) {
		return short(float64(v))
	}
	return "-"
}

// boardTable has a row a trial, with a column for each objective and each further metric.
func boardTable(objectives []trial.Objective, further []string, rows []trial.Row) table {
	o, others := objectives[0], objectives[1:]
	t := table{head: []string{"RANK", "TRIAL", "STATE", strings.ToUpper(dash(o.Metric))},
		wide: []string{"CHECKPOINT"}, spare: []string{"EPOCH", "STATE"}, flex: []string{"PARAMS"}}
	for _, other := range others {
		t.head = append(t.head, strings.ToUpper(other.Metric))
	}
	if len(others) > 0 {
		t.head = append(t.head, "FRONT")
	}
	for _, name := range further {
		t.head = append(t.head, strings.ToUpper(name))
	}
	t.head = append(t.head, "EPOCH", "PARAMS", "CHECKPOINT")
	for _, x := range rows {
		row := []string{count(x.Rank), count(x.Trial), x.Status.String(), short(float64(x.Value))}
		for i := range others {
			cell := "-"
			if i+1 < len(x.Values) && !math.IsNaN(float64(x.Values[i+1])) {
				cell = short(float64(x.Values[i+1]))
			}
			row = append(row, cell)
		}
		if len(others) > 0 {
			row = append(row, map[bool]string{true: "*", false: "-"}[x.Front])
		}
		for _, name := range further {
			row = append(row, metricCell(x.Metrics, name))
		}
		t.rows = append(t.rows, append(row, count(int64(x.Epoch)), pairs(x.Params), dash(string(x.Checkpoint))))
	}
	return t
}

// sourceFlags are those of verbs that read Redis.
func sourceFlags() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "source", Usage: "`WHERE`: redis or state; it is read from there"},
		&ucli.Uint64Flag{Name: "at-least", Usage: "answer only what reflects log index `N` or a later one; waits 3 s for it"},
	}
}

// boardReader connects for a verb with sourceFlags.
func (e *Env) boardReader(c *ucli.Context) (*client.Client, client.From, error) {
	from := client.From{Source: c.String("source"), AtLeast: c.Uint64("at-least")}
	if s := from.Source; s != "" && s != "redis" && s != "state" {
		return nil, from, usage("--source %s: want redis or state", s)
	}
	api, err := e.lister(c)
	return api, from, err
}

// stale is the age from which an answer of Redis is told.
const stale = 2 * time.Second

// sayOrigin says where an answer comes from, what it reflects, and that there is
// no leader.
func (e *Env) sayOrigin(of string, f client.Freshness) {
	old := ""
	switch {
	case f.Age < 0:
		old = ", of unknown age"
	case f.Age > stale:
		old = ", " + roundly(f.Age) + " old"
	}
	e.say("%sfrom %s at index %d%s", of, f.Source, f.Index, old)
	if f.NoLeader != "" {
		e.say("warning: %s; what happened since is missing here", f.NoLeader)
	}
}
