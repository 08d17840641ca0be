package state_test

import (
	"bytes"
	"fmt"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// by lets somebody ask for a random command, or makes it one about who may do what.
func (c *chaos) by(cmd *logv1.Command) *logv1.Command {
	if c.rng.IntN(4) > 0 {
		return cmd
	}
	cmd.By = fmt.Sprintf("p%d", c.rng.IntN(3))
	if c.rng.IntN(12) > 0 {
		return cmd
	}
	name := fmt.Sprintf("%010d", c.rng.IntN(6))
	expires := int64(c.rng.IntN(1 << 30))
	switch c.rng.IntN(6) {
	case 0:
		cmd.Op = &logv1.Command_CreateToken{CreateToken: &logv1.CreateToken{Id: "t-" + name, Name: "n" + name[9:], Role: role([]string{"viewer", "admin", "trial"}[c.rng.IntN(3)]), Sha256: hashed(name), ExpiresMs: expires * int64(c.rng.IntN(2))}}
	case 1:
		cmd.Op = &logv1.Command_RevokeToken{RevokeToken: &logv1.RevokeToken{Id: "t-" + name}}
	case 2:
		cmd.Op = &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{Id: "i-" + name, Role: role([]string{"worker", "coordinator", "admin"}[c.rng.IntN(3)]), Sha256: hashed(name), ExpiresMs: expires, Uses: int32(c.rng.IntN(4))}}
	case 3:
		cmd.Op = &logv1.Command_ConsumeInvite{ConsumeInvite: &logv1.ConsumeInvite{Id: "i-" + name, Node: fmt.Sprintf("w%d", c.rng.IntN(3)), Key: hashed(fmt.Sprint(c.rng.IntN(2)))}}
	case 4:
		cmd.Op = &logv1.Command_RevokeInvite{RevokeInvite: &logv1.RevokeInvite{Id: "i-" + name}}
	case 5:
		cmd.Op = &logv1.Command_RecordAct{RecordAct: &logv1.RecordAct{What: "refuse", About: name, Refused: "why", Count: expires}}
	}
	return cmd
}

// A restore brings no token back that was revoked since, and takes none away that was made since;
// the list of acts goes on.
func TestRestoreLeavesAccessAsItIs(t *testing.T) {
	create := func(id, name string) *logv1.Command {
		return &logv1.Command{TimeMs: 1, By: "first", Rules: state.Rules, Op: &logv1.Command_CreateToken{CreateToken: &logv1.CreateToken{Id: id, Name: name, Role: role("admin"), Sha256: hashed(id)}}}
	}
	m := state.New()
	apply(m, create("t-aaaaaaaaaa", "before"))
	apply(m, create("t-bbbbbbbbbb", "stays"))
	var saved bytes.Buffer
	if _, err := m.View().WriteTo(&saved); err != nil {
		t.Fatal(err)
	}
	apply(m, create("t-cccccccccc", "since"))
	apply(m, &logv1.Command{TimeMs: 2, By: "first", Rules: state.Rules, Op: &logv1.Command_RevokeToken{RevokeToken: &logv1.RevokeToken{Id: "t-aaaaaaaaaa"}}})
	for _, c := range restoring("r-1", saved.Bytes(), 100, 1) {
		c.By = "stays"
		if r := apply(m, c); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	revoked, _ := m.View().Token("t-aaaaaaaaaa")
	if _, ok := m.View().Token("t-cccccccccc"); !ok || revoked.RevokedMS != 2 {
		t.Errorf("after the restore there are %v", m.View().Tokens())
	}
	acts := m.View().Acts()
	if last := acts[len(acts)-1]; len(acts) != 5 || last.What != "restore state" || last.By != "stays" {
		t.Errorf("acts: %+v", acts)
	}
}

// Tables are bounded: of acts the oldest goes; of tokens and invitations the oldest that is good
// no more, and where all are good a new one is refused.
func TestAccessTablesAreBounded(t *testing.T) {
	m := state.New()
	index := uint64(0)
	all := func(commands []*logv1.Command) (errs []error) {
		for len(commands) > 0 {
			n := min(len(commands), state.MaxCommands)
			index++
			for _, r := range m.Apply(index, &logv1.Entry{Commands: commands[:n]}) {
				if r.Err != nil {
					errs = append(errs, r.Err)
				}
			}
			commands = commands[n:]
		}
		return errs
	}
	var tokens, invites []*logv1.Command
	for i := range 10_001 {
		id := fmt.Sprintf("%010d", i)
		expires := int64(0)
		if i == 7 {
			expires = 100
		}
		tokens = append(tokens, &logv1.Command{TimeMs: 5, By: "p", Op: &logv1.Command_CreateToken{CreateToken: &logv1.CreateToken{Id: "t-" + id, Name: id, Role: role("viewer"), Sha256: hashed(id), ExpiresMs: expires}}})
		invites = append(invites, &logv1.Command{TimeMs: 5, By: "p", Op: &logv1.Command_CreateInvite{CreateInvite: &logv1.CreateInvite{Id: "i-" + id, Role: role("worker"), Sha256: hashed(id), ExpiresMs: 100 + 1000*int64(min(1, max(i-7, 7-i))), Uses: 1}}})
	}
	if errs := all(tokens); len(errs) != 1 {
		t.Errorf("10,001 tokens: %v", errs)
	}
	if errs := all(invites); len(errs) != 1 {
		t.Errorf("10,001 invitations: %v", errs)
	}
	tokens[10_000].TimeMs, invites[10_000].TimeMs = 200, 200 // number 7 has expired
	if errs := all([]*logv1.Command{tokens[10_000], invites[10_000]}); len(errs) != 0 {
		t.Errorf("in the place of one that has expired: %v", errs)
	}
	if _, ok := m.View().Token("t-0000000007"); ok || len(m.View().Tokens()) != 10_000 || len(m.View().Invites()) != 10_000 {
		t.Errorf("%d tokens and %d invitations, number 7 among them: %v", len(m.View().Tokens()), len(m.View().Invites()), ok)
	}
	acts := m.View().Acts()
	if len(acts) != 10_000 || acts[len(acts)-1].About != "i-0000010000" {
		t.Errorf("%d acts, the last about %s", len(acts), acts[len(acts)-1].About)
	}
	if restored(t, m.View()).View().Hash() != m.View().Hash() {
		t.Error("saved and restored, another hash")
	}
}
