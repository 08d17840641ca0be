package api

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/version"
	"atelier/coordinator/board"
	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// Cluster is what the ClusterService needs of raft.
type Cluster interface {
	Membership
	Snapshots
	Stats() replica.Stats
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
	RestoreSnapshot(ctx context.Context, r io.Reader) error
}

// cluster is the ClusterService.
type cluster struct{ *Server }

const (
	// joinTimeout bounds how long a joiner is waited for until it has the log.
	joinTimeout   = 8 * time.Second
	snapshotChunk = 256 << 10
	// askTimeout bounds the question to another member how far it is.
	askTimeout = 400 * time.Millisecond
)

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
		resp.RunningTrials += sw.Counts.Running
	}
	if list, err := s.cfg.Assign.Workers(); err == nil {
		for _, w := range list {
			if w.State != "lost" {
				resp.Workers++
				resp.Slots += int64(len(w.Slots))
			}
		}
	}
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

func (s cluster) ListMembers(ctx context.Context, _ *connect.Request[atelierv1.ListMembersRequest]) (*connect.Response[atelierv1.ListMembersResponse], error) {
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	stats := s.cfg.Cluster.Stats()
	return connect.NewResponse(&atelierv1.ListMembersResponse{Members: s.members(ctx, view, stats), LeaderId: stats.LeaderID}), nil
}

// members joins what raft, the state and gossip know, and asks each member how
// far it is.
func (s *Server) members(ctx context.Context, view *state.View, stats replica.Stats) []*atelierv1.Member {
	known := map[string]state.Member{}
	for _, m := range view.Members() {
		known[m.ID] = m
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var wg sync.WaitGroup
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
		if p.ID == s.cfg.ID {
			m.Alive, m.AppliedIndex = true, view.Index()
			continue
		}
		m.Alive = s.cfg.Peers.Alive(p.ID)
		if m.ApiAddress == "" {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			peer := atelierv1connect.NewClusterServiceClient(&http.Client{Transport: s.peers}, "http://"+m.ApiAddress)
			if got, err := peer.GetNode(ctx, connect.NewRequest(&atelierv1.GetNodeRequest{})); err == nil {
				m.AppliedIndex = got.Msg.AppliedIndex
			}
		}()
	}
	wg.Wait()
	return out
}

func (s cluster) Join(ctx context.Context, req *connect.Request[atelierv1.JoinRequest]) (*connect.Response[atelierv1.JoinResponse], error) {
	m := req.Msg
	if m.Id == "" || m.RaftAddress == "" || m.ApiAddress == "" {
		return nil, invalid("a member needs an id, a raft and an API address: got %q, %q, %q", m.Id, m.RaftAddress, m.ApiAddress)
	}
	view, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	if m.ClusterId != "" && m.ClusterId != view.ClusterID() {
		return nil, connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("%s belongs to cluster %s, this is cluster %s: start it with an empty --data folder, or join its own cluster", m.Id, m.ClusterId, view.ClusterID()))
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	// Addresses first: whoever follows may have to lead soon, and be found.
	if _, err := s.write(ctx, &logv1.Command{Op: &logv1.Command_SetMember{SetMember: &logv1.SetMember{
		Id: m.Id, RaftAddress: m.RaftAddress, ApiAddress: m.ApiAddress, GossipAddress: m.GossipAddress,
	}}}); err != nil {
		return nil, err
	}
	if err := s.cfg.Cluster.AddMember(ctx, m.Id, m.RaftAddress); err != nil {
		return nil, unavailable(err)
	}
	return connect.NewResponse(&atelierv1.JoinResponse{ClusterId: view.ClusterID()}), nil
}

func (s cluster) RemoveMember(ctx context.Context, req *connect.Request[atelierv1.RemoveMemberRequest]) (*connect.Response[atelierv1.RemoveMemberResponse], error) {
	if _, err := s.read(ctx); err != nil {
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
	switch {
	case !found:
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%q is not a member", req.Msg.Id))
	case voters == 0:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("%s is the last voting member: without it there is no cluster", req.Msg.Id))
	}
	drop := &logv1.Command{Op: &logv1.Command_DropMember{DropMember: &logv1.DropMember{Id: req.Msg.Id}}}
	if req.Msg.Id == s.cfg.ID { // afterwards this node writes nothing
		if _, err := s.write(ctx, drop); err != nil {
			return nil, err
		}
	}
	if err := s.cfg.Cluster.RemoveMember(ctx, req.Msg.Id); err != nil {
		return nil, unavailable(err)
	}
	if req.Msg.Id != s.cfg.ID {
		if _, err := s.write(ctx, drop); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&atelierv1.RemoveMemberResponse{}), nil
}

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
			return nil, unavailable(fmt.Errorf("no leader yet after the transfer: %w", ctx.Err()))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s cluster) SaveSnapshot(ctx context.Context, _ *connect.Request[atelierv1.SaveSnapshotRequest], out *connect.ServerStream[atelierv1.SnapshotChunk]) error {
	w := bufio.NewWriterSize(chunks(func(b []byte) error { return out.Send(&atelierv1.SnapshotChunk{Data: b}) }), snapshotChunk)
	if err := s.cfg.Cluster.SaveSnapshot(ctx, w); err != nil {
		return failure(err)
	}
	return w.Flush()
}

type chunks func([]byte) error

func (c chunks) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += snapshotChunk {
		if err := c(b[at:min(at+snapshotChunk, len(b))]); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

func (s cluster) RestoreSnapshot(ctx context.Context, in *connect.ClientStream[atelierv1.SnapshotChunk]) (*connect.Response[atelierv1.RestoreSnapshotResponse], error) {
	if err := s.cfg.Cluster.RestoreSnapshot(ctx, &unchunk{in: in}); err != nil {
		var notLeader *replica.NotLeaderError
		if errors.As(err, &notLeader) || errors.Is(err, replica.ErrUnknown) || ctx.Err() != nil {
			return nil, failure(err)
		}
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	view := s.cfg.View()
	return connect.NewResponse(&atelierv1.RestoreSnapshotResponse{
		Index: view.Index(), Sweeps: int64(len(view.Sweeps())), Trials: view.Trials(),
	}), nil
}

// unchunk reads a stream of chunks as bytes.
type unchunk struct {
	in   *connect.ClientStream[atelierv1.SnapshotChunk]
	rest []byte
}

func (u *unchunk) Read(b []byte) (int, error) {
	for len(u.rest) == 0 {
		if !u.in.Receive() {
			if err := u.in.Err(); err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		u.rest = u.in.Msg().Data
	}
	n := copy(b, u.rest)
	u.rest = u.rest[n:]
	return n, nil
}

// GetNode answers for this node alone, leader or not.
func (s cluster) GetNode(_ context.Context, req *connect.Request[atelierv1.GetNodeRequest]) (*connect.Response[atelierv1.GetNodeResponse], error) {
	stats := s.cfg.Cluster.Stats()
	view := s.cfg.View()
	resp := &atelierv1.GetNodeResponse{
		Id: s.cfg.ID, Role: stats.Role, AppliedIndex: view.Index(), LastLogIndex: stats.LastLogIndex, LeaderId: stats.LeaderID,
		LeaderApi: s.apiOf(stats.LeaderID), MemoryBytes: residentBytes(), Version: version.Version,
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
