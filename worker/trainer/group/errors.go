package group

import (
	"errors"
	"fmt"
	"strings"

	"atelier/common/trainerproto"
)

// ErrLeft is Commit's error of a member that asked to leave: the step is
// committed, the others continue without it.
var ErrLeft = errors.New("left the group")

// ErrClosed is the error of a group that was closed here.
var ErrClosed = errors.New("group: closed")

// Mismatch is the error of two members that would not compute the same bits.
type Mismatch struct {
	A, B             trainerproto.Fellow
	EngineA, EngineB string
}

func (m *Mismatch) Error() string {
	a, b := differ(m.EngineA, m.EngineB)
	return fmt.Sprintf("%q is not %q: %s and %s cannot train together, since they would compute other values; %s has %s; %s has %s",
		a, b, m.A.Name, m.B.Name, m.A.Name, m.EngineA, m.B.Name, m.EngineB)
}

// differ is the part in which two engines differ, from one comma or semicolon to
// another.
func differ(a, b string) (string, string) {
	cut := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == ';' || r == ',' })
	}
	as, bs := cut(a), cut(b)
	for len(as) > 0 && len(bs) > 0 && as[0] == bs[0] {
		as, bs = as[1:], bs[1:]
	}
	for len(as) > 0 && len(bs) > 0 && as[len(as)-1] == bs[len(bs)-1] {
		as, bs = as[:len(as)-1], bs[:len(bs)-1]
	}
	join := func(s []string) string { return strings.TrimSpace(strings.Join(s, ",")) }
	return join(as), join(bs)
}

// Pair is a connection that did not come about, as one of the two sees it.
type Pair struct {
	From trainerproto.Fellow `json:"from"`
	To   trainerproto.Fellow `json:"to"`
}

// Unreachable is the error of members at whose start some could not reach one
// another within the term. A pair is in it in each direction in which it was
// missed.
type Unreachable struct{ Pairs []Pair }

func (u *Unreachable) Error() string {
	var list []string
	for _, p := range u.Pairs {
		list = append(list, fmt.Sprintf("%s has no link to %s", p.From.Name, p.To.Name))
	}
	return "members of the group do not reach one another: " + strings.Join(list, "; ") +
		". Check that the workers can connect to each other's file server address"
}

// CutOff is the error of a member that the others continue without.
type CutOff struct{ Reason string }

func (c *CutOff) Error() string { return "cut off from the group: " + c.Reason }

// Changed is Commit's error of a dirty step: none of its sums count, and it is to
// be done again in View, from the state that the caller has now.
type Changed struct {
	View   View
	Behind bool // State.Read was called: the caller is at the end of step View.Step now
}

func (c *Changed) Error() string {
	return fmt.Sprintf("the step is to be done again: view %d (%s)", c.View.Number, c.View.Reason)
}
