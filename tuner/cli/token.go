package cli

import (
	"fmt"
	"time"

	"atelier/common/access"
	"atelier/common/files"

	ucli "github.com/urfave/cli/v2"
)

// tokenCommands are for the admins of a closed cluster.
func (e *Env) tokenCommands() *ucli.Command {
	return group("token", "tokens of people and programs, in a closed cluster",
		verb(&ucli.Command{Name: "create", Usage: "make a token", ArgsUsage: "NAME",
			Description: "NAME is for people: whose it is, or what it is for; changes made with the token are listed under\n" +
				"it (atelier cluster audit). The token is printed once and kept nowhere; the cluster has its hash.\n" +
				"Roles: viewer reads; operator also starts and controls sweeps, trials and workers; admin also\n" +
				"members, snapshots, tokens and invitations.",
			Flags: []ucli.Flag{outputFlag(), &ucli.StringFlag{Name: "role", Value: access.Viewer.String(), Usage: "`ROLE`: viewer, operator or admin"},
				&ucli.DurationFlag{Name: "ttl", Usage: "it is good for `TIME`, such as 720h (default: until it is revoked)"},
				&ucli.StringFlag{Name: "out", Usage: "write it to `FILE`, which its owner alone can read, and print it nowhere"}}, Action: e.createToken}, 1, 1,
			"atelier token create ada --role operator", "atelier token create ci --role viewer --ttl 720h --out ci.token"),
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list the tokens, also those that are over", Flags: []ucli.Flag{outputFlag()}, Action: e.listTokens}, 0, 0,
			"atelier token list"),
		verb(&ucli.Command{Name: "revoke", Usage: "end a token at once", ArgsUsage: "NAME|ID", Action: e.revokeToken}, 1, 1,
			"atelier token revoke ada"),
	)
}

// tokenRecord is a new token, with its text: the only time that it is shown.
type tokenRecord struct {
	access.Token
	Text string `json:"token"` // empty: it is in a file
	File string `json:"file"`  // empty: it is in no file
}

func (e *Env) createToken(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	role, err := access.ParseRole(c.String("role"), access.Viewer, access.Operator, access.Admin)
	if err != nil {
		return usage("token create: --%s", err)
	}
	if c.Duration("ttl") < 0 {
		return usage("token create: --ttl %v: want a time that is not negative", c.Duration("ttl"))
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	token := access.NewToken()
	r := tokenRecord{Text: token.Text()}
	if file := c.String("out"); file != "" {
		// Before the cluster knows it: a disk that is full leaves no token that nobody has.
		if err := files.Write(e.path(file), []byte(r.Text+"\n"), 0o600); err != nil {
			return fmt.Errorf("token create: --out: %w", err)
		}
		r.Text, r.File = "", file
	}
	if r.Token, err = api.CreateToken(c.Context, token, c.Args().First(), role, c.Duration("ttl")); err != nil {
		return err
	}
	if !tabular(c) {
		return e.print(c, r, nil)
	}
	if r.File != "" {
		e.say("token %s (%s, %s) is in %s", r.ID, r.Name, r.Role, r.File)
		return nil
	}
	e.say("token %s (%s, %s); it is shown this once:", r.ID, r.Name, r.Role)
	fmt.Fprintln(e.Out, r.Text)
	return nil
}

func (e *Env) listTokens(c *ucli.Context) error {
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	all, err := api.ListTokens(c.Context)
	if err != nil {
		return err
	}
	return e.print(c, all, func() table {
		t := table{head: []string{"NAME", "ID", "ROLE", "STATE", "CREATED", "EXPIRES", "BY"}}
		for _, k := range all {
			t.rows = append(t.rows, []string{k.Name, k.ID, k.Role, e.standing(k.ExpiresMS, k.RevokedMS, false), e.age(k.CreatedMS), e.expiry(k.ExpiresMS), dash(k.By)})
		}
		return t
	})
}

// standing is a word for whether a token or an invitation is still good.
func (e *Env) standing(expires, revoked int64, used bool) string {
	switch {
	case revoked != 0:
		return "revoked"
	case used:
		return "used"
	case expires != 0 && e.Now().UnixMilli() >= expires:
		return "expired"
	}
	return "good"
}

// expiry is when something is over.
func (e *Env) expiry(ms int64) string {
	if ms == 0 {
		return "never"
	}
	if left := time.UnixMilli(ms).Sub(e.Now()); left > 0 {
		return "in " + roundly(left)
	}
	return e.age(ms) + " ago"
}

func (e *Env) revokeToken(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	k, err := api.RevokeToken(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	e.say("token %s (%s) is revoked", k.ID, k.Name)
	return nil
}

// auditCommand lists who changed what.
func (e *Env) auditCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "audit", Usage: "list who changed what, and what was refused to whom",
		Description: "Of a closed cluster, for its admins. Each change that a person or a coordinator asked for, with the\n" +
			"time and the raft index, oldest first; what runs report is not listed. The newest 10,000 changes\n" +
			"and 2,000 refusals are kept.",
		Flags: []ucli.Flag{outputFlag(), &ucli.IntFlag{Name: "limit", Value: 100, Usage: "the newest `N`"},
			&ucli.StringFlag{Name: "by", Usage: "of one token or node: `NAME`"},
			&ucli.Uint64Flag{Name: "after", Usage: "of after raft index `N`"}}, Action: e.audit}, 0, 0,
		"atelier cluster audit", "atelier cluster audit --by ada -o json")
}

func (e *Env) audit(c *ucli.Context) error {
	if c.Int("limit") < 1 {
		return usage("cluster audit: --limit %d: want a number from 1", c.Int("limit"))
	}
	api, err := e.reader(c)
	if err != nil {
		return err
	}
	defer api.Close()
	acts, more, err := api.Audit(c.Context, c.Uint64("after"), int32(c.Int("limit")), c.String("by"))
	if err != nil {
		return err
	}
	if more && tabular(c) {
		e.say("the newest %d; --limit N shows more", len(acts))
	}
	return e.print(c, acts, func() table {
		t := table{head: []string{"TIME", "INDEX", "BY", "WHAT", "ABOUT", "TIMES", "REFUSED"}, flex: []string{"REFUSED"}}
		for _, a := range acts {
			t.rows = append(t.rows, []string{time.UnixMilli(a.TimeMS).Format("2006-01-02 15:04:05"), count(int64(a.Index)), dash(a.By), a.What, dash(a.About), count(a.Count), dash(a.Refused)})
		}
		return t
	})
}
