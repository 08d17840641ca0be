package api

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// Whether a request that no leader answered was carried out.
const (
	nothingDone = true  // no node has begun it
	perhapsDone = false // it is not known
)

// noLeader is the one error of a request that no leader answered. Clients know
// it by its detail, other coordinators by a header: they hand bodies on unread.
func noLeader(nothing bool, format string, a ...any) *connect.Error {
	e := client.Refusal{Reason: client.ReasonNoLeader, NothingDone: nothing}.Error(connect.CodeUnavailable, fmt.Errorf(format, a...))
	if nothing {
		e.Meta().Set(notLeaderHeader, "1")
	}
	return e
}

// nobody says why there is no leader, as far as this node can tell, and more. A node that has lost its leader is
// mostly one that is alone: which members it cannot reach is what a person has to know.
func (s *Server) nobody(nothing bool, more ...string) *connect.Error {
	why := append([]string{absence(s.cfg.ID, s.cfg.Cluster.Stats())}, more...)
	return noLeader(nothing, "no leader: %s", strings.Join(why, "; "))
}

// absence is the reason for people: which members are not reached, and how many
// are needed.
func absence(id string, stats replica.Stats) string {
	var lost []string
	voters, reached, member := 0, 0, false
	for _, p := range stats.Peers {
		if p.ID == id {
			member = true
		}
		if !p.Voter {
			continue
		}
		voters++
		if p.Trouble == "" {
			reached++
			continue
		}
		where := p.At
		if where == "" {
			where = p.Address
		}
		lost = append(lost, fmt.Sprintf("%s at %s (%s)", p.ID, where, p.Trouble))
	}
	switch {
	case len(stats.Peers) == 0:
		return fmt.Sprintf("coordinator %s answers and waits to be taken into its cluster; ask another one", id)
	case !member:
		return fmt.Sprintf("coordinator %s answers and is a member of its cluster no more; ask another one", id)
	case len(lost) == 0:
		return "the coordinators are electing one, or too few of them are up; ask again"
	}
	text := fmt.Sprintf("coordinator %s answers and cannot reach %s; a leader needs %d of %d voters", id, strings.Join(lost, ", "), voters/2+1, voters)
	if reached < voters/2+1 {
		text += ": start the others; if they are lost for good, `atelier-coordinator recover`"
	}
	return text
}

// ofCluster is whose leader answers.
func ofCluster(view *state.View) *atelierv1.ClusterIdentity {
	return &atelierv1.ClusterIdentity{Id: view.ClusterID(), FormerIds: view.Former()}
}

// wasRemoved refuses a node that was taken off the cluster in words that it
// understands, too.
func wasRemoved(id, cluster string) error {
	return client.Refusal{Reason: client.ReasonRemoved, Cluster: cluster}.Error(connect.CodeFailedPrecondition,
		fmt.Errorf("%s was removed from cluster %s: to take the machine back, empty its --data folder and --join again", id, cluster))
}
