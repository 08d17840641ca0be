package cli

import (
	"math"
	"strings"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
	ucli "github.com/urfave/cli/v2"
)

func (e *Env) leaderboardCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "leaderboard", Aliases: []string{"lb"}, Usage: "a sweep's trials by best objective value", ArgsUsage: "ID",
		Description: "Read from Redis when the cluster has one, else from its state; which of them, and the\n" +
			"log index the answer reflects, is said on standard error. Both give the same rows.",
		Flags: []ucli.Flag{outputFlag(),
			&ucli.IntFlag{Name: "top", Aliases: []string{"n"}, Usage: "the best `N`; 0 = all"},
			&ucli.StringFlag{Name: "source", Usage: "`WHERE` to read: redis or state"},
			&ucli.BoolFlag{Name: "pareto", Usage: "only trials that no other improves upon in all objectives; read from state"},
		}, Action: e.leaderboard}, 1, 1,
		"atelier leaderboard s-k3v9q2ma --top 10",
		"atelier leaderboard s-k3v9q2ma -o json | jq -r '.[0].checkpoint'",
		"atelier leaderboard s-k3v9q2ma -o csv > trials.csv")
}

func (e *Env) leaderboard(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	source := c.String("source")
	if source != "" && source != "redis" && source != "state" {
		return usage("--source %s: want redis or state", source)
	}
	if c.Int("top") < 0 {
		return usage("--top %d: want 0 (all) or more", c.Int("top"))
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	r, err := api.Sweeps.GetLeaderboard(c.Context, connect.NewRequest(&atelierv1.GetLeaderboardRequest{
		Id: c.Args().First(), Top: int32(c.Int("top")), Source: source, Pareto: c.Bool("pareto")}))
	if err != nil {
		return err
	}
	o := objectiveOf(r.Msg.GetObjective())
	var others []*atelierv1.Objective // shown in columns of their own
	if all := r.Msg.GetObjectives(); len(all) > 1 {
		others = all[1:]
	}
	records := []rowRecord{}
	for _, row := range r.Msg.GetRows() {
		records = append(records, rowOf(row))
	}
	e.say("%s %s, from %s at index %d", o.Direction, o.Metric, r.Msg.GetSource(), r.Msg.GetIndex())
	if err := e.sayOtherData(c.Context, api, c.Args().First()); err != nil {
		return err
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"RANK", "TRIAL", "STATE", strings.ToUpper(dash(o.Metric))}}
		for _, other := range others {
			t.head = append(t.head, strings.ToUpper(other.GetMetric()))
		}
		if len(others) > 0 {
			t.head = append(t.head, "FRONT")
		}
		t.head = append(t.head, "EPOCH", "PARAMS", "CHECKPOINT")
		for _, x := range records {
			row := []string{count(x.Rank), count(x.Trial), x.State, short(float64(x.Value))}
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
			t.rows = append(t.rows, append(row, count(int64(x.Epoch)), pairs(x.Params), dash(x.Checkpoint)))
		}
		return t
	})
}
