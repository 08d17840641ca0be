package cli

import (
	"fmt"
	"strconv"

	"atelier/common/client"

	ucli "github.com/urfave/cli/v2"
)

// clusterCommands are about the coordinators themselves.
func (e *Env) clusterCommands() *ucli.Command {
	return group("cluster", "coordinators: health, members, snapshots",
		verb(&ucli.Command{Name: "status", Usage: "the cluster in a few lines", Flags: []ucli.Flag{outputFlag()}, Action: e.clusterStatus}, 0, 0,
			"atelier cluster status", "atelier cluster status -o json | jq -r .leader"),
		verb(&ucli.Command{Name: "members", Usage: "list the coordinators", Flags: []ucli.Flag{outputFlag()}, Action: e.clusterMembers}, 0, 0,
			"atelier cluster members"),
		verb(&ucli.Command{Name: "snapshot", Usage: "save the cluster's state to a file", ArgsUsage: "FILE",
			Description: "FILE carries a SHA-256 and appears whole and checked or not at all; an earlier snapshot there is replaced. - is standard output.",
			Flags:       []ucli.Flag{overwriteFlag()}, Action: e.saveSnapshot}, 1, 1,
			"atelier cluster snapshot backup.snap", "atelier cluster snapshot - | zstd > backup.zst"),
		verb(&ucli.Command{Name: "restore", Usage: "replace the cluster's state by a snapshot", ArgsUsage: "FILE",
			Description: "Everything the cluster knows now is lost, on every coordinator at once or not at all. The file is checked before anything is touched. All leases end: trials that ran wait again, and go on from a checkpoint that is there.\n" +
				"Of several addresses the first that knows a leader gets the file; it goes to another as long as it is known that nothing was done.",
			Flags: []ucli.Flag{&ucli.BoolFlag{Name: "yes", Usage: "yes, replace it"}}, Action: e.restoreSnapshot}, 1, 1,
			"atelier cluster restore backup.snap --yes"),
		verb(&ucli.Command{Name: "remove", Usage: "take a coordinator out of the cluster", ArgsUsage: "ID",
			Description: "For one that will not come back. Its data must not be started again.", Action: e.removeMember}, 1, 1,
			"atelier cluster remove c3"),
		verb(&ucli.Command{Name: "transfer", Usage: "hand leadership to another coordinator", ArgsUsage: "[ID]", Action: e.transfer}, 0, 1,
			"atelier cluster transfer", "atelier cluster transfer c2"),
	)
}

// memberTable has a row a coordinator; who leads is told as its role.
func memberTable(ms []client.Member) table {
	t := table{head: []string{"ID", "ROLE", "ALIVE", "API", "RAFT", "GOSSIP"}}
	for _, m := range ms {
		role := m.Suffrage
		if m.Leader {
			role = "leader"
		}
		t.rows = append(t.rows, []string{m.ID, dash(role), map[bool]string{true: "yes", false: "no"}[m.Alive], dash(m.APIAddress), dash(m.RaftAddress), dash(m.GossipAddress)})
	}
	return t
}

// clusterStatus prints the cluster as its leader sees it. Without a leader the exit code is 5, and
// the error says which coordinators are not reached.
func (e *Env) clusterStatus(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	s, err := api.Status(c.Context)
	if err != nil {
		return err
	}
	if err := e.print(c, s, func() table {
		redis := s.Redis
		if redis != "" && redis != "off" && s.RedisIndex > 0 {
			redis += ", at index " + strconv.FormatUint(s.RedisIndex, 10)
		}
		return table{head: []string{"", ""}, rows: [][]string{
			{"cluster", s.ClusterID},
			{"leader", fmt.Sprintf("%s, term %d", dash(s.Leader), s.Term)},
			{"log", fmt.Sprintf("committed to %d, applied to %d", s.CommitIndex, s.AppliedIndex)},
			{"sweeps", fmt.Sprintf("%d, with %d trials, %d running", s.Sweeps, s.Trials, s.RunningTrials)},
			{"workers", fmt.Sprintf("%d, with %d slots", s.Workers, s.Slots)},
			{"redis", dash(redis)},
			{"version", s.Version},
		}}
	}); err != nil || !tabular(c) {
		return err
	}
	fmt.Fprintln(e.Out)
	writeTable(e.Out, memberTable(s.Members))
	// Why nothing can be written is what a person came for: it stands last, where the eye is.
	if s.Refusing != "" {
		fmt.Fprintln(e.Out, "\nwrites are refused: "+s.Refusing)
	}
	for _, p := range s.Members {
		if p.NoRoom != "" && s.Refusing == "" {
			fmt.Fprintln(e.Out, "\nno room for new entries: "+p.NoRoom)
		}
	}
	return nil
}

// clusterMembers prints the coordinators, also those that are dead.
func (e *Env) clusterMembers(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	ms, err := api.Members(c.Context)
	if err != nil {
		return err
	}
	return e.print(c, ms, func() table { return memberTable(ms) })
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
		return err
	}
	e.say("coordinator %s is no member any more", c.Args().First())
	return nil
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
