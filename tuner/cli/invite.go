package cli

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"

	ucli "github.com/urfave/cli/v2"
)

// inviteCommands let new machines into a closed cluster.
func (e *Env) inviteCommands() []*ucli.Command {
	return []*ucli.Command{
		verb(&ucli.Command{Name: "invite", Usage: "let a new machine join: print what it has to be started with",
			Description: "Of a closed cluster, for its admins. The invitation has the coordinators' addresses, the fingerprint\n" +
				"of the cluster's authority and a secret; whoever has it can join, so send it as you would a\n" +
				"password. It is shown once, and good for as many machines as it has uses.",
			Flags: []ucli.Flag{outputFlag(), &ucli.StringFlag{Name: "role", Value: access.Worker.String(), Usage: "`ROLE` of the machine: worker or coordinator"},
				&ucli.StringFlag{Name: "name", Usage: "good for the machine of this `NAME` alone"},
				&ucli.DurationFlag{Name: "ttl", Value: time.Hour, Usage: "good for `TIME`, at most 720h"},
				&ucli.IntFlag{Name: "uses", Value: 1, Usage: "good for `N` machines, at most 1000"}}, Action: e.invite}, 0, 0,
			"atelier cluster invite", "atelier cluster invite --role coordinator --name c2 --ttl 10m"),
		verb(&ucli.Command{Name: "invites", Usage: "list the invitations, and who joined by them", Flags: []ucli.Flag{outputFlag()}, Action: e.listInvites}, 0, 0,
			"atelier cluster invites"),
		verb(&ucli.Command{Name: "uninvite", Usage: "end an invitation; who joined by it stays", ArgsUsage: "ID", Action: e.revokeInvite}, 1, 1,
			"atelier cluster uninvite i-4fk2m8q0za"),
	}
}

// inviteRecord is a new invitation, with its text: the only time that it is shown.
type inviteRecord struct {
	access.Invite
	Text    string `json:"invitation"`
	Command string `json:"command"`
}

func (e *Env) invite(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	role, err := access.ParseRole(c.String("role"), access.Worker, access.Coordinator)
	if err != nil {
		return usage("cluster invite: --%s", err)
	}
	if c.Int("uses") < 1 || c.Int("uses") > 1000 || c.Duration("ttl") <= 0 {
		return usage("cluster invite: --uses %d, --ttl %v: want 1 to 1000 uses and a time above 0", c.Int("uses"), c.Duration("ttl"))
	}
	if c.String("name") != "" && c.Int("uses") != 1 {
		return usage("cluster invite: --name is for one machine: leave --uses out")
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	credential := access.NewInvite()
	made, err := api.CreateInvite(c.Context, credential, client.Invitation{Role: role, Node: c.String("name"), TTL: c.Duration("ttl"), Uses: int32(c.Int("uses"))})
	if err != nil {
		return err
	}
	i := identity.Invitation{Addresses: made.Addrs, Fingerprint: hex.EncodeToString(made.CA), Secret: credential.Text()}
	r := inviteRecord{Invite: made.Invite, Text: i.Text()}
	r.Command = fmt.Sprintf("atelier-%s --data DIR --join %s", role, r.Text)
	if role == access.Coordinator {
		r.Command = fmt.Sprintf("atelier-%s --id %s --data DIR --api HOST:7600 --raft HOST:7601 --gossip HOST:7602 --join %s", role, cmp.Or(r.Node, "NAME"), r.Text)
	}
	if !tabular(c) {
		return e.print(c, r, nil)
	}
	e.say("invitation %s for %s, good for %s; it is shown this once. On the new machine:", r.ID, plural(int(r.Uses), role.String()), roundly(time.UnixMilli(r.ExpiresMS).Sub(e.Now())))
	fmt.Fprintln(e.Out, r.Command)
	return nil
}

func (e *Env) listInvites(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	all, err := api.ListInvites(c.Context)
	if err != nil {
		return err
	}
	return e.print(c, all, func() table {
		t := table{head: []string{"ID", "ROLE", "FOR", "STATE", "USED", "CREATED", "EXPIRES", "BY", "JOINED"}, flex: []string{"JOINED"}}
		for _, i := range all {
			joined := ""
			for _, u := range i.Taken {
				joined += " " + u.Node
			}
			used := len(i.Taken) >= int(i.Uses)
			t.rows = append(t.rows, []string{i.ID, i.Role, cmp.Or(i.Node, "any"), e.standing(i.ExpiresMS, i.RevokedMS, used), fmt.Sprintf("%d/%d", len(i.Taken), i.Uses),
				e.age(i.CreatedMS), e.expiry(i.ExpiresMS), dash(i.By), dash(joined)})
		}
		return t
	})
}

func (e *Env) revokeInvite(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	i, err := api.RevokeInvite(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	e.say("invitation %s is revoked", i.ID)
	return nil
}
