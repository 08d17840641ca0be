package api

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/version"
	"atelier/coordinator/board"
	"atelier/coordinator/duty/audit"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// Cluster is what the ClusterService needs of raft. Stats and MarkedState are cheap and of this node.
type Cluster interface {
	Membership
	Snapshots
	Stats() replica.Stats
	MarkedState() replica.Mark
}

// Membership changes who belongs to the cluster and who leads it.
type Membership interface {
	AddMember(ctx context.Context, id, raftAddr string) error
	RemoveMember(ctx context.Context, id string) error
	Transfer(ctx context.Context, id string) error
	Leader() (id, raftAddr string)
}

// Snapshots moves the whole state out of and into the cluster.
type Snapshots interface {
	SaveSnapshot(ctx context.Context, w io.Writer) error
	RestoreSnapshot(ctx context.Context, id string, r io.Reader) (replica.Restored, error)
	// RestoreOutcome says whether a named restore took place; an unfinished one is given up.
	RestoreOutcome(ctx context.Context, id string) (replica.Restored, error)
}

// cluster is the ClusterService.
type cluster struct{ *Server }

const (
	// joinTimeout bounds how long a joiner is waited for until it has the log.
	joinTimeout = 8 * time.Second
	// askTimeout bounds the question to another member how far it is.
	askTimeout = 400 * time.Millisecond
)

// GetStatus is the cluster as its leader sees it: members, counts, and how far Redis
// is behind.
func (s cluster) GetStatus(ctx context.Context, _ *connect.Request[atelierv1.GetStatusRequest]) (*connect.Response[atelierv1.GetStatusResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	stats := s.cfg.Cluster.Stats()
	resp := &atelierv1.GetStatusResponse{
		ClusterId: view.ClusterID(), LeaderId: stats.LeaderID, Term: stats.Term, CommitIndex: stats.CommitIndex,
		AppliedIndex: stats.AppliedIndex, Members: s.members(ctx, view, stats), Version: version.Version, Redis: "off",
	}
	for _, sw := range view.Sweeps() {
		resp.Sweeps++
		resp.Trials += sw.Len()
		resp.RunningTrials += sw.Counts.Running - int64(len(leasedAhead(view, sw)))
	}
	if list, err := s.cfg.Assign.Workers(); err == nil {
		for _, w := range list {
			if w.State != "lost" {
				resp.Workers++
				resp.Slots += int64(len(w.Slots))
			}
		}
	}
	resp.Refusing = stats.Refusing
	if s.cfg.Projection != nil {
		p := s.cfg.Projection.Status()
		resp.RedisIndex = p.Index
		var held *board.HeldError
		switch {
		case errors.As(p.Err, &held):
			resp.Redis = p.Err.Error()
		case p.Err != nil:
			resp.Redis = "down: " + p.Err.Error()
		case p.Index < view.Index():
			resp.Redis = fmt.Sprintf("behind by %d", view.Index()-p.Index)
		default:
			resp.Redis = "ok"
		}
	}
	return connect.NewResponse(resp), nil
}

// ListMembers is also what a joiner asks before its raft starts, to learn the
// cluster's id.
func (s cluster) ListMembers(ctx context.Context, _ *connect.Request[atelierv1.ListMembersRequest]) (*connect.Response[atelierv1.ListMembersResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	stats := s.cfg.Cluster.Stats()
	return connect.NewResponse(&atelierv1.ListMembersResponse{Members: s.members(ctx, view, stats), LeaderId: stats.LeaderID, ClusterId: view.ClusterID()}), nil
}

// listed joins what raft, the state and gossip know of the members, without a
// question to any of them.
func (s *Server) listed(view *state.View, stats replica.Stats) []*atelierv1.Member {
	known := map[string]state.Member{}
	for _, m := range view.Members() {
		known[m.ID] = m
	}
	out := make([]*atelierv1.Member, len(stats.Peers))
	for i, p := range stats.Peers {
		m := &atelierv1.Member{
			Id: p.ID, RaftAddress: p.Address, ApiAddress: known[p.ID].APIAddress, GossipAddress: known[p.ID].GossipAddress,
			Suffrage: "nonvoter", Leader: p.ID == stats.LeaderID, AppliedIndex: p.Match,
		}
		if p.Voter {
			m.Suffrage = "voter"
		}
		out[i] = m
		if p.Room.Full() {
			m.NoRoom = p.Room.String()
		}
		if p.ID == s.cfg.ID {
			m.Alive, m.AppliedIndex = true, view.Index()
			if stats.Room.Full() {
				m.NoRoom = stats.Room.String()
			}
			continue
		}
		m.Alive = s.cfg.Peers.Alive(p.ID)
		if m.ApiAddress == "" {
			m.ApiAddress = s.cfg.Peers.API(p.ID)
		}
	}
	return out
}

// members are those listed, each asked how far it is.
func (s *Server) members(ctx context.Context, view *state.View, stats replica.Stats) []*atelierv1.Member {
	out := s.listed(view, stats)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, m := range out {
		if m.Id == s.cfg.ID || m.ApiAddress == "" {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			if got, err := s.askNode(ctx, m.ApiAddress); err == nil {
				m.AppliedIndex = got.AppliedIndex
			}
		}()
	}
	wg.Wait()
	return out
}

// askNode asks one coordinator about itself, for as long as ctx lasts.
func (s *Server) askNode(ctx context.Context, api string) (*atelierv1.GetNodeResponse, error) {
	peer := atelierv1connect.NewClusterServiceClient(&http.Client{Transport: s.peers}, s.urlOf(api))
	got, err := peer.GetNode(ctx, connect.NewRequest(&atelierv1.GetNodeRequest{}))
	if err != nil {
		return nil, err
	}
	return got.Msg, nil
}

// AskMark is duty/audit's question to a member, this node or another.
func (s *Server) AskMark(ctx context.Context, id string) (audit.Found, error) {
	if id == s.cfg.ID {
		m := s.cfg.Cluster.MarkedState()
		return audit.Found{Index: m.Index, Hash: hex.EncodeToString(m.Hash[:]), Version: version.Version}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	got, err := s.askNode(ctx, s.apiOf(id))
	if err != nil {
		return audit.Found{}, err
	}
	return audit.Found{Index: got.MarkedIndex, Hash: got.MarkedHash, Version: got.Version}, nil
}

// Join takes a node in, or writes down that its addresses moved: every start of a
// node calls it. It answers when the node has the log and votes. A node of another
// cluster, or one that was removed, is refused for good.
func (s cluster) Join(ctx context.Context, req *connect.Request[atelierv1.JoinRequest]) (*connect.Response[atelierv1.JoinResponse], error) {
	m := req.Msg
	if m.Id == "" || m.RaftAddress == "" || m.ApiAddress == "" {
		return nil, invalid("a member needs an id, a raft and an API address: got %q, %q, %q", m.Id, m.RaftAddress, m.ApiAddress)
	}
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	_, member := view.Member(m.Id)
	switch {
	case m.ClusterId != view.ClusterID() && slices.Contains(view.Former(), m.ClusterId):
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("%s belongs to cluster %s, which was recovered as this cluster %s: empty its --data folder and --join again", m.Id, m.ClusterId, view.ClusterID()))
	case m.ClusterId != view.ClusterID():
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("%s belongs to cluster %q, this is cluster %s: start it with an empty --data folder, or join its own cluster", m.Id, m.ClusterId, view.ClusterID()))
	case view.Removed(m.FolderId), m.HasState && !member && !s.votes(m.Id):
		// Members of earlier versions that were removed are known by their state
		// alone: who joins has none before it stands in the list.
		return nil, wasRemoved(m.Id, view.ClusterID())
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	// Addresses first: whoever follows may have to lead soon, and be found.
	if _, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{
		Id: m.Id, RaftAddress: m.RaftAddress, ApiAddress: m.ApiAddress, GossipAddress: m.GossipAddress, FolderId: m.FolderId,
	}}}); err != nil {
		if connect.CodeOf(err) == connect.CodeFailedPrecondition {
			err = client.Refusal{Cluster: view.ClusterID()}.Error(connect.CodeFailedPrecondition, errors.New(client.Message(err)))
		}
		return nil, err
	}
	if err := s.cfg.Cluster.AddMember(ctx, m.Id, m.RaftAddress); err != nil {
		return nil, unavailable(err)
	}
	return connect.NewResponse(&atelierv1.JoinResponse{ClusterId: view.ClusterID()}), nil
}

// RemoveMember takes a node off raft's list, then writes DropMember, from which on its
// data folder is refused everywhere. The last voter stays; a leader hands over first.
func (s cluster) RemoveMember(ctx context.Context, req *connect.Request[atelierv1.RemoveMemberRequest]) (*connect.Response[atelierv1.RemoveMemberResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	voters, found := 0, false
	for _, p := range s.cfg.Cluster.Stats().Peers {
		if p.ID == req.Msg.Id {
			found = true
		} else if p.Voter {
			voters++
		}
	}
	_, listed := view.Member(req.Msg.Id)
	switch {
	case !found && !listed:
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%q is not a member", req.Msg.Id))
	case found && voters == 0:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is the last voting member: without it there is no cluster", req.Msg.Id))
	case found && req.Msg.Id == s.cfg.ID:
		return s.removeSelf(ctx, req)
	case found:
		if err := s.cfg.Cluster.RemoveMember(ctx, req.Msg.Id); err != nil {
			return nil, unavailable(err)
		}
	}
	// Its data folder is refused from then on.
	if _, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: req.Msg.Id}}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&atelierv1.RemoveMemberResponse{}), nil
}

// removeSelf hands leadership over and lets the next leader remove this node: a
// leader that removes itself could write nothing afterwards, and nobody would
// know that its folder may not come back.
func (s cluster) removeSelf(ctx context.Context, req *connect.Request[atelierv1.RemoveMemberRequest]) (*connect.Response[atelierv1.RemoveMemberResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	m := req.Msg
	ask := handedOn(connect.NewRequest(m), req.Header())
	if s.cfg.TLS != nil { // in the name of who asks
		ask.Header().Set(forwardedHeader, s.cfg.ID)
		handCaller(ask.Header(), callerOf(ctx))
	}
	if err := s.cfg.Cluster.Transfer(ctx, ""); err != nil {
		return nil, unavailable(fmt.Errorf("%s leads and could not hand leadership over before it is removed: %w", m.Id, err))
	}
	for {
		if id, _ := s.cfg.Cluster.Leader(); id != "" && id != s.cfg.ID {
			if addr := s.apiOf(id); addr != "" {
				next := atelierv1connect.NewClusterServiceClient(&http.Client{Transport: s.peers}, s.urlOf(addr))
				resp, err := next.RemoveMember(ctx, ask)
				if err == nil || connect.CodeOf(err) != connect.CodeUnavailable {
					return resp, err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil, noLeader(perhapsDone, "no leader yet that could remove %s: %w", m.Id, ctx.Err())
		case <-time.After(lookAgain):
		}
	}
}

// votes reports whether raft's configuration has a node.
func (s *Server) votes(id string) bool {
	return slices.ContainsFunc(s.cfg.Cluster.Stats().Peers, func(p replica.PeerStats) bool { return p.ID == id })
}

// TransferLeadership answers when another node leads; an empty id leaves the choice to
// raft.
func (s cluster) TransferLeadership(ctx context.Context, req *connect.Request[atelierv1.TransferLeadershipRequest]) (*connect.Response[atelierv1.TransferLeadershipResponse], error) {
	if id := req.Msg.Id; id != "" {
		voter := false
		for _, p := range s.cfg.Cluster.Stats().Peers {
			voter = voter || p.ID == id && p.Voter
		}
		if !voter {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%q is not a voting member", id))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// Before it: afterwards this node writes nothing.
	if err := s.noteAct(ctx, "ask for another leader", req.Msg.Id); err != nil {
		return nil, err
	}
	if err := s.cfg.Cluster.Transfer(ctx, req.Msg.Id); err != nil {
		return nil, unavailable(err)
	}
	for {
		id, _ := s.cfg.Cluster.Leader()
		if id != "" && (id != s.cfg.ID || req.Msg.Id == s.cfg.ID) {
			return connect.NewResponse(&atelierv1.TransferLeadershipResponse{LeaderId: id}), nil
		}
		select {
		case <-ctx.Done():
			return nil, noLeader(perhapsDone, "no leader yet after the transfer: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// GetNode answers for this node alone, leader or not.
func (s cluster) GetNode(_ context.Context, req *connect.Request[atelierv1.GetNodeRequest]) (*connect.Response[atelierv1.GetNodeResponse], error) {
	stats := s.cfg.Cluster.Stats()
	view := s.cfg.View()
	resp := &atelierv1.GetNodeResponse{
		Id: s.cfg.ID, Role: stats.Role, AppliedIndex: view.Index(), LastLogIndex: stats.LastLogIndex, LeaderId: stats.LeaderID,
		LeaderApi: s.apiOf(stats.LeaderID), MemoryBytes: residentBytes(), Version: version.Version, ClusterId: view.ClusterID(),
		FreeBytes: stats.Room.Free, NeededBytes: stats.Room.Need, Members: s.listed(view, stats), Term: stats.Term, CommitIndex: stats.CommitIndex,
	}
	if m := s.cfg.Cluster.MarkedState(); m.Index > 0 {
		resp.MarkedIndex, resp.MarkedHash = m.Index, hex.EncodeToString(m.Hash[:])
	}
	if req.Msg.Hash {
		h := view.Hash()
		resp.StateHash = hex.EncodeToString(h[:])
	}
	return connect.NewResponse(resp), nil
}

// residentBytes is the process's memory as the system counts it; where there is
// no /proc, as the Go runtime does.
func residentBytes() int64 {
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				return pages * int64(os.Getpagesize())
			}
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.Sys)
}

// unavailable is for what another attempt may mend.
func unavailable(err error) error {
	if err := failure(err); connect.CodeOf(err) != connect.CodeInternal {
		return err
	}
	return connect.NewError(connect.CodeUnavailable, err)
}
