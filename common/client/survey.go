package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// surveyLimit bounds the question to one coordinator; a survey takes at most
// surveyRounds of it.
const (
	surveyLimit  = 800 * time.Millisecond
	surveyRounds = 2
)

// Survey is what the coordinators of a cluster answer, each about itself. It
// takes no leader.
type Survey struct {
	Cluster string // id; "" = no coordinator that answers knows it
	Leader  string // id of the leader of the highest term that any node knows; "" = none
	Nodes   []Station
}

// Station is one coordinator, as seen from here.
type Station struct {
	Member          // as the coordinators that answer know it; only APIAddress where none does
	Node    *Node   // its own answer; nil = it gave none
	Finding Finding // why it gave none
}

// Up reports whether the coordinator answers.
func (s *Station) Up() bool { return s.Node != nil }

// name is its id, or its address where the id is not known.
func (s *Station) name() string {
	if s.ID != "" {
		return s.ID
	}
	return s.APIAddress
}

// Survey asks all coordinators that are known here, and those that their answers
// name, each about itself and all at once. It tries each address once.
func (c *Client) Survey(ctx context.Context) *Survey {
	answers, failures := map[string]*Node{}, map[string]Finding{}
	var asked []string
	addrs := c.set.all()
	for range surveyRounds {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, addr := range addrs {
			asked = append(asked, addr)
			wg.Go(func() {
				n, found := c.station(ctx, addr)
				mu.Lock()
				defer mu.Unlock()
				if n != nil {
					answers[addr] = n
				} else {
					failures[addr] = found
				}
			})
		}
		wg.Wait()
		addrs = nil
		for _, n := range answers {
			for _, m := range n.Members {
				known := slices.ContainsFunc(asked, func(a string) bool { return answers[a] != nil && answers[a].ID == m.ID })
				if m.APIAddress != "" && !known && !slices.Contains(asked, m.APIAddress) && !slices.Contains(addrs, m.APIAddress) {
					addrs = append(addrs, m.APIAddress)
				}
			}
		}
		if len(addrs) == 0 {
			break
		}
	}
	return survey(asked, answers, failures)
}

// station asks one coordinator about itself; where it does not answer, the
// finding says why.
func (c *Client) station(ctx context.Context, addr string) (*Node, Finding) {
	seen := newFindings()
	one, cancel := context.WithTimeoutCause(seen.traced(ctx), surveyLimit, errUnresponsive)
	defer cancel()
	n, err := c.Node(one, addr)
	if err == nil {
		c.pulses.at(addr).beat()
		return &n, Finding{}
	}
	// The transport, or the node by the limit it was sent, may end it a moment before the context does.
	if ctx.Err() == nil && (one.Err() != nil || connect.CodeOf(err) == connect.CodeDeadlineExceeded) {
		err = errUnresponsive
	}
	found, ok := seen.note(ctx, addr, err)
	if !ok { // it answers, and refuses
		found = Finding{addr, Unwilling, err}
	}
	return nil, found
}

// survey puts the answers together. The node that knows of the most recent term
// says who the members are.
func survey(asked []string, answers map[string]*Node, failures map[string]Finding) *Survey {
	s := &Survey{}
	var best *Node
	for _, a := range asked {
		n := answers[a]
		if n != nil && len(n.Members) > 0 && (best == nil || n.Term > best.Term || n.Term == best.Term && n.CommitIndex > best.CommitIndex) {
			best = n
		}
	}
	if best != nil {
		s.Cluster = best.ClusterID
		for _, m := range best.Members {
			s.Nodes = append(s.Nodes, Station{Member: m})
		}
		slices.SortStableFunc(s.Nodes, func(a, b Station) int { return strings.Compare(a.ID, b.ID) }) // raft's order is that of joining
	}
	if best != nil { // a node that was begun anew at the address of a member is none
		for a, n := range answers {
			if n.ClusterID != "" && best.ClusterID != "" && n.ClusterID != best.ClusterID {
				delete(answers, a)
				failures[a] = Finding{a, Unwilling, connect.NewError(connect.CodeUnavailable, fmt.Errorf("answers for another cluster, %s", n.ClusterID))}
			}
		}
	}
	var term uint64
	for _, a := range asked {
		n := answers[a]
		if n == nil {
			continue
		}
		if n.LeaderID != "" && n.Term >= term && (best == nil || n.ClusterID == best.ClusterID) {
			s.Leader, term = n.LeaderID, n.Term
		}
		i := slices.IndexFunc(s.Nodes, func(o Station) bool { return o.ID == n.ID })
		if i < 0 {
			s.Nodes = append(s.Nodes, Station{Member: Member{ID: n.ID, APIAddress: a}, Node: n})
		} else if s.Nodes[i].Node == nil {
			s.Nodes[i].Node = n
		}
	}
	for _, a := range asked {
		f, failed := failures[a]
		if !failed {
			continue
		}
		i := slices.IndexFunc(s.Nodes, func(o Station) bool { return o.APIAddress == a })
		switch {
		case i < 0 && best == nil:
			s.Nodes = append(s.Nodes, Station{Member: Member{APIAddress: a}, Finding: f})
		case i >= 0 && s.Nodes[i].Node == nil:
			s.Nodes[i].Finding = f
		}
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		n.Leader = s.Leader != "" && n.ID == s.Leader
		if n.Node == nil && n.Finding.Err == nil {
			n.Finding = Finding{n.APIAddress, Gone, connect.NewError(connect.CodeUnavailable, errNoAddress)}
		}
	}
	return s
}

var errNoAddress = errors.New("its API's address is not known here")

// Count says how many voters the cluster has, how many of them answer, and how
// many a leader takes. All are 0 where no node that answers knows its members.
func (s *Survey) Count() (voters, up, needed int) {
	for i := range s.Nodes {
		if s.Nodes[i].Suffrage == "voter" {
			voters++
			if s.Nodes[i].Up() {
				up++
			}
		}
	}
	if voters > 0 {
		needed = voters/2 + 1
	}
	return voters, up, needed
}

// Members are the coordinators with what each answered here.
func (s *Survey) Members() []Member {
	out := make([]Member, len(s.Nodes))
	for i := range s.Nodes {
		n := &s.Nodes[i]
		m := n.Member
		m.State = "up"
		if n.Up() {
			m.AppliedIndex, m.LastIndex, m.Version = n.Node.AppliedIndex, n.Node.LastIndex, n.Node.Version
		} else {
			m.State = n.Finding.Brief()
		}
		out[i] = m
	}
	return out
}

// Electable reports whether enough voters answer for a leader to be elected.
func (s *Survey) Electable() bool {
	voters, up, needed := s.Count()
	return voters > 0 && up >= needed
}

// Status is what the nodes' own answers tell of the cluster, without a leader.
func (s *Survey) Status() *Status {
	out := &Status{ClusterID: s.Cluster, Leader: s.Leader, Health: s.Health(), Members: s.Members()}
	for i := range s.Nodes {
		if n := s.Nodes[i].Node; n != nil {
			out.Term, out.CommitIndex, out.AppliedIndex = max(out.Term, n.Term), max(out.CommitIndex, n.CommitIndex), max(out.AppliedIndex, n.AppliedIndex)
			if out.Version == "" {
				out.Version = n.Version
			}
		}
	}
	return out
}

// Whole reports whether the cluster has a leader and every member answers.
func (s *Survey) Whole() bool {
	return s.Leader != "" && !slices.ContainsFunc(s.Nodes, func(n Station) bool { return !n.Up() })
}

// Health says in a sentence what works and what may still fail.
func (s *Survey) Health() string {
	voters, up, needed := s.Count()
	switch {
	case voters == 0 && s.Leader == "":
		return "no leader: " + s.who()
	case voters == 0:
		return "leader " + s.Leader
	case s.Leader == "" && up >= needed:
		return fmt.Sprintf("no leader yet: %s up (%s), which is enough: they are electing one", of(up, voters), s.who())
	case s.Leader == "":
		are := "are"
		if needed == 1 {
			are = "is"
		}
		return fmt.Sprintf("no leader: %s up (%s); %d %s needed. Start atelier-coordinator on %s with its old --data", of(up, voters), s.who(), needed, are, s.missing())
	case up < needed:
		return fmt.Sprintf("leader %s; from here only %s up (%s)", s.Leader, of(up, voters), s.who())
	}
	text := fmt.Sprintf("%d of %d voters up", up, voters)
	if up < voters {
		text += " (" + s.who() + ")"
	}
	switch spare := up - needed; {
	case spare == 0:
		return text + ", no further failure tolerated"
	case spare == 1:
		return text + ", 1 failure tolerated"
	default:
		return fmt.Sprintf("%s, %d failures tolerated", text, spare)
	}
}

// of is "1 of 3 coordinators is".
func of(up, all int) string {
	noun, verb := "coordinators", "are"
	if all == 1 {
		noun = "coordinator"
	}
	if up == 1 {
		verb = "is"
	}
	return fmt.Sprintf("%d of %d %s %s", up, all, noun, verb)
}

// who is "a up; b, c: connection refused".
func (s *Survey) who() string {
	var texts []string
	at := map[string][]string{}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		text := "up"
		if !n.Up() {
			text = n.Finding.Brief()
		}
		if at[text] == nil {
			texts = append(texts, text)
		}
		at[text] = append(at[text], n.name())
	}
	for i, text := range texts {
		between := ": "
		if text == "up" {
			between = " "
		}
		texts[i] = strings.Join(at[text], ", ") + between + text
	}
	return strings.Join(texts, "; ")
}

// missing names the voters that do not answer: "b or c".
func (s *Survey) missing() string {
	var names []string
	for i := range s.Nodes {
		if n := &s.Nodes[i]; !n.Up() && n.Suffrage == "voter" {
			names = append(names, n.name())
		}
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

// surveyed adds to what a call ends with how all coordinators are, where one of
// them answered that there is no leader.
func (c *Client) surveyed(ctx context.Context, e *UnreachableError) *UnreachableError {
	slow := func(f Finding) bool { return f.Kind == Slow }
	if !c.opts.follow || !e.NoLeader && !slices.ContainsFunc(e.Found, slow) {
		return e
	}
	all := c.Survey(ctx)
	if voters, _, _ := all.Count(); voters == 0 || all.Leader != "" {
		return e
	}
	e.Survey, e.NoLeader = all, true
	for i, f := range e.Found { // it held the call, waiting for a leader itself
		if n, _ := c.station(ctx, f.Addr); slow(f) && n != nil {
			e.Found[i] = Finding{f.Addr, NoLeader, errNoneKnown}
		}
	}
	return e
}

// errNoneKnown is what a node without a leader is put down with.
var errNoneKnown = connect.NewError(connect.CodeUnavailable, errors.New("it knows of no leader at present"))

// learnFrom takes the members' addresses from a node that has no leader, which
// cannot be asked for them in the usual way.
func (c *Client) learnFrom(ctx context.Context, addr string) {
	one, cancel := context.WithTimeout(ctx, surveyLimit)
	defer cancel()
	if n, err := c.raw.Node(addr).GetNode(one, connect.NewRequest(&atelierv1.GetNodeRequest{})); err == nil {
		c.learnMembers(n.Msg.Members)
	}
}

// learnMembers keeps the members' addresses that a node without a leader knows.
func (c *Client) learnMembers(all []*atelierv1.Member) {
	if !c.opts.follow {
		return
	}
	var addrs []string
	for _, m := range all {
		addrs = append(addrs, m.ApiAddress)
	}
	c.set.learn(addrs)
}
