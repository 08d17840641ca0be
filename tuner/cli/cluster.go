package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"atelier/common/client"

	ucli "github.com/urfave/cli/v2"
)

// clusterCommands are about the coordinators themselves.
func (e *Env) clusterCommands() *ucli.Command {
	return group("cluster", "coordinators: health, members, snapshots, invitations", append(e.inviteCommands(),
		verb(&ucli.Command{Name: "status", Usage: "the cluster's health, leader and coordinators",
			Description: "Any coordinator that answers is enough: each reports its own view, and all that the cluster has are asked.\n" +
				"Exit code 0 with a leader, 5 without one; with --check, 1 unless every coordinator answers.",
			Flags: []ucli.Flag{outputFlag(), checkFlag()}, Action: e.clusterStatus}, 0, 0,
			"atelier cluster status", "atelier cluster status --check -o json | jq -r .health"),
		verb(&ucli.Command{Name: "members", Usage: "list the coordinators and whether they answer",
			Description: "Takes no leader, and has the exit codes of atelier cluster status.",
			Flags:       []ucli.Flag{outputFlag(), checkFlag()}, Action: e.clusterMembers}, 0, 0,
			"atelier cluster members"),
		verb(&ucli.Command{Name: "snapshot", Usage: "save the cluster's state to a file", ArgsUsage: "FILE",
			Description: "FILE carries a SHA-256 and appears whole and checked or not at all; an earlier snapshot there is replaced. - is standard output.",
			Flags:       []ucli.Flag{overwriteFlag()}, Action: e.saveSnapshot}, 1, 1,
			"atelier cluster snapshot backup.snap", "atelier cluster snapshot - | zstd > backup.zst"),
		verb(&ucli.Command{Name: "restore", Usage: "replace the cluster's state by a snapshot", ArgsUsage: "FILE",
			Description: "This replaces the cluster's whole state, on every coordinator at once or not at all. The file is checked before anything is touched. All leases end: trials that ran wait again, and resume from a checkpoint that exists.\n" +
				"Of several addresses the first that knows a leader gets the file; it goes to another as long as it is known that nothing was done.",
			Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "yes, replace it"}}, Action: e.restoreSnapshot}, 1, 1,
			"atelier cluster restore backup.snap --yes"),
		verb(&ucli.Command{Name: "remove", Usage: "take a coordinator out of the cluster", ArgsUsage: "ID",
			Description: "For a machine that will not return. Its data must not be started again.", Action: e.removeMember}, 1, 1,
			"atelier cluster remove c3"),
		verb(&ucli.Command{Name: "transfer", Usage: "hand leadership to another coordinator", ArgsUsage: "[ID]", Action: e.transfer}, 0, 1,
			"atelier cluster transfer", "atelier cluster transfer c2"),
		e.auditCommand())...)
}

// checkFlag is for monitoring.
func checkFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "check", Usage: "exit code 1 unless every coordinator answers"}
}

// memberTable has a row per coordinator; who leads is its role. Its state is what
// it answers to this machine, beside what gossip knows, which is older.
func memberTable(ms []client.Member) table {
	t := table{head: []string{"ID", "ROLE", "STATE", "LOG", "VERSION", "API", "RAFT", "GOSSIP"},
		wide: []string{"RAFT", "GOSSIP"}, spare: []string{"VERSION", "LOG"}, flex: []string{"STATE", "API"}}
	for _, m := range ms {
		role := m.Suffrage
		if m.Leader {
			role = "leader"
		}
		t.rows = append(t.rows, []string{dash(m.ID), dash(role), dash(m.State), logOf(m), dash(m.Version), dash(m.APIAddress), dash(m.RaftAddress), dash(m.GossipAddress)})
	}
	return t
}

// deposedWait is longer than a leader without followers remains one.
const deposedWait = 1500 * time.Millisecond

// survey asks every coordinator about itself. Where none leads it waits for a
// leader, as any command does; where too few of them are up to elect one, only for a
// --retry-for that is given. status is what the leader says; nil without one.
func (e *Env) survey(c *ucli.Context) (all *client.Survey, status *client.Status, err error) {
	api, err := e.reader(c)
	if err != nil {
		return nil, nil, err
	}
	defer api.Close()
	all = api.Survey(c.Context)
	voters, _, _ := all.Count()
	tooFew := voters > 0 && !all.Electable() && !c.IsSet("retry-for")
	ctx := c.Context
	if tooFew { // a leader that is still known is about to step down
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deposedWait)
		defer cancel()
	}
	if !tooFew || all.Leader != "" {
		status, err = api.Status(ctx)
		if ctx.Err() != nil && c.Context.Err() == nil {
			return api.Survey(c.Context), nil, nil
		}
		if u, ok := errors.AsType[*client.UnreachableError](err); ok && u.Survey != nil {
			return u.Survey, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		all = api.Survey(c.Context)
	}
	return all, status, nil
}

// membersOf are the coordinators as each answers; where they run an earlier
// version, whose nodes do not know one another, as the leader lists them.
func membersOf(all *client.Survey, s *client.Status) []client.Member {
	if voters, _, _ := all.Count(); voters == 0 && s != nil {
		return s.Members
	}
	return all.Members()
}

// clusterStatus prints the cluster as its leader sees it, and each coordinator
// as it answers here. Without a leader it prints what the coordinators know
// themselves.
func (e *Env) clusterStatus(c *ucli.Context) error {
	all, s, err := e.survey(c)
	if err != nil {
		return err
	}
	led := s != nil
	if led {
		s.Health, s.Members = all.Health(), membersOf(all, s)
	} else {
		s = all.Status()
	}
	if err := e.print(c, s, func() table {
		t := table{head: []string{"", ""}, rows: [][]string{
			{"health", s.Health},
			{"asked", fmt.Sprintf("%s (%s)", c.String("addr"), e.addressFrom(c))},
			{"cluster", s.ClusterID},
			{"leader", fmt.Sprintf("%s, term %d", dash(s.Leader), s.Term)},
			{"log", fmt.Sprintf("committed to %d, applied to %d", s.CommitIndex, s.AppliedIndex)}}}
		if led {
			redis := s.Redis
			if redis != "" && redis != "off" && s.RedisIndex > 0 {
				redis += ", at index " + strconv.FormatUint(s.RedisIndex, 10)
			}
			t.rows = append(t.rows, []string{"sweeps", fmt.Sprintf("%s, with %s, %s running", thousands(s.Sweeps), plural(s.Trials, "trial"), thousands(s.RunningTrials))},
				[]string{"workers", fmt.Sprintf("%s, with %s", thousands(s.Workers), plural(s.Slots, "slot"))}, []string{"redis", dash(redis)})
		}
		t.rows = append(t.rows, []string{"version", s.Version})
		return t
	}); err != nil {
		return err
	}
	if tabular(c) {
		fmt.Fprintln(e.Out)
		e.writeTable(e.Out, memberTable(s.Members), c.String("output") == "wide")
		// Why nothing can be written is what a person came for: it is last, where the eye is.
		if s.Refusing != "" {
			fmt.Fprintln(e.Out, "\nwrites are refused: "+s.Refusing)
		}
		for _, p := range s.Members {
			if p.NoRoom != "" && s.Refusing == "" {
				fmt.Fprintln(e.Out, "\nno room for new entries: "+p.NoRoom)
			}
		}
	}
	return e.healthy(c, all)
}

// clusterMembers prints the coordinators, also those that are dead.
func (e *Env) clusterMembers(c *ucli.Context) error {
	all, s, err := e.survey(c)
	if err != nil {
		return err
	}
	ms := membersOf(all, s)
	if err := e.print(c, ms, func() table { return memberTable(ms) }); err != nil {
		return err
	}
	return e.healthy(c, all)
}

// healthy is the exit code of what shows the coordinators: 5 without a leader,
// and 1 with --check where not all of them answer.
func (e *Env) healthy(c *ucli.Context, all *client.Survey) error {
	text := all.Health()
	if c.Command.Name == "status" && tabular(c) {
		text = "" // it is the table's first line
	}
	switch {
	case all.Leader == "":
		return &exitError{code: client.ExitNoLeader, text: text}
	case c.Bool("check") && !all.Whole():
		return &exitError{code: client.ExitError, text: text}
	}
	return nil
}

// removeMember takes a coordinator off the cluster for good: its data folder is refused from then
// on. It needs no request id, for what is removed stays removed.
func (e *Env) removeMember(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	if err := api.RemoveMember(c.Context, c.Args().First()); err != nil {
		if client.ExitCode(err) == client.ExitNotFound {
			return notFound("%s%s", client.Message(err), membersThere(c.Context, api))
		}
		return err
	}
	e.say("removed coordinator %s", c.Args().First())
	return nil
}

// membersThere lists the members, to be put behind an error.
func membersThere(ctx context.Context, api *client.Client) string {
	all, err := api.Members(ctx)
	if err != nil || len(all) == 0 {
		return "; atelier cluster members lists them"
	}
	var ids []string
	for _, m := range all {
		ids = append(ids, m.ID)
	}
	return "; the members are " + strings.Join(ids, ", ") + " (atelier cluster members)"
}

// transfer answers when another coordinator leads.
func (e *Env) transfer(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	leader, err := api.Transfer(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	e.say("%s leads", dash(leader))
	return nil
}

// logOf is the newest entry of a coordinator's log.
func logOf(m client.Member) string {
	if m.LastIndex == 0 {
		return "-"
	}
	return count(int64(m.LastIndex))
}
