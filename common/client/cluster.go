package client

import (
	"context"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// Workers lists the workers that the cluster knows.
func (c *Client) Workers(ctx context.Context) ([]trial.Worker, error) {
	m, err := ask(ctx, c.raw.Workers.ListWorkers, &atelierv1.ListWorkersRequest{})
	return wire.List(m.GetWorkers(), wire.Worker), err
}

// Drain frees a worker: it gets no more trials, until undo.
func (c *Client) Drain(ctx context.Context, requestID, name string, undo bool) error {
	_, err := ask(ctx, c.raw.Workers.DrainWorker, &atelierv1.DrainWorkerRequest{RequestId: requestID, Name: name, Undo: undo})
	return err
}

// Status is the cluster in short. Its keys are what -o json prints.
type Status struct {
	ClusterID     string   `json:"cluster_id"`
	Leader        string   `json:"leader"` // id; "" = none
	Term          uint64   `json:"term"`
	CommitIndex   uint64   `json:"commit_index"`
	AppliedIndex  uint64   `json:"applied_index"`
	Sweeps        int64    `json:"sweeps"`
	Trials        int64    `json:"trials"`
	RunningTrials int64    `json:"running_trials"`
	Workers       int64    `json:"workers"`
	Slots         int64    `json:"slots"`
	Redis         string   `json:"redis"`       // off, ok, "down: ...", "behind by N"
	RedisIndex    uint64   `json:"redis_index"` // watermark
	Version       string   `json:"version"`
	Health        string   `json:"health"` // in a sentence
	Members       []Member `json:"members"`
	Refusing      string   `json:"refusing,omitempty"` // why the cluster takes no writes now
}

// Member is one coordinator of the cluster.
type Member struct {
	ID            string `json:"id"`
	Leader        bool   `json:"leader"`
	Suffrage      string `json:"suffrage"` // voter, nonvoter
	Alive         bool   `json:"alive"`    // as gossip sees it; a hint
	APIAddress    string `json:"api_address"`
	RaftAddress   string `json:"raft_address"`
	GossipAddress string `json:"gossip_address"`
	AppliedIndex  uint64 `json:"applied_index"`
	LastIndex     uint64 `json:"last_index"` // of its log, where it answers
	State         string `json:"state"`      // up, or why it does not answer from here; "" = it was not asked
	Version       string `json:"version"`    // where it answers
	NoRoom        string `json:"-"`          // why it takes no new entries; "" = it does
}

func members(ms []*atelierv1.Member, leader string) []Member {
	return wire.List(ms, func(m *atelierv1.Member) Member {
		return Member{ID: m.GetId(), Leader: m.GetLeader() || m.GetId() == leader, Suffrage: m.GetSuffrage(), Alive: m.GetAlive(), APIAddress: m.GetApiAddress(),
			RaftAddress: m.GetRaftAddress(), GossipAddress: m.GetGossipAddress(), AppliedIndex: m.GetAppliedIndex(), NoRoom: m.GetNoRoom()}
	})
}

// Status asks how the cluster is.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	m, err := ask(ctx, c.raw.Cluster.GetStatus, &atelierv1.GetStatusRequest{})
	return &Status{ClusterID: m.GetClusterId(), Leader: m.GetLeaderId(), Term: m.GetTerm(), CommitIndex: m.GetCommitIndex(), AppliedIndex: m.GetAppliedIndex(),
		Sweeps: m.GetSweeps(), Trials: m.GetTrials(), RunningTrials: m.GetRunningTrials(), Workers: m.GetWorkers(), Slots: m.GetSlots(),
		Redis: m.GetRedis(), RedisIndex: m.GetRedisIndex(), Version: m.GetVersion(), Members: members(m.GetMembers(), m.GetLeaderId()), Refusing: m.GetRefusing()}, err
}

// Members lists the coordinators.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	_, all, err := c.Identity(ctx)
	return all, err
}

// Identity is which cluster answers, and its coordinators.
func (c *Client) Identity(ctx context.Context) (clusterID string, all []Member, err error) {
	m, err := ask(ctx, c.raw.Cluster.ListMembers, &atelierv1.ListMembersRequest{})
	return m.GetClusterId(), members(m.GetMembers(), m.GetLeaderId()), err
}

// Joining is what a coordinator says of itself when it joins, or comes back.
type Joining struct {
	ID, FolderID, ClusterID                string // ClusterID is that of its folder
	RaftAddress, APIAddress, GossipAddress string
	HasState                               bool // its folder holds a log or a snapshot
}

// Join tells the cluster where a coordinator is and returns the cluster's id. Who
// is refused for good is told by RefusalOf.
func (c *Client) Join(ctx context.Context, j Joining) (clusterID string, err error) {
	m, err := ask(ctx, c.raw.Cluster.Join, &atelierv1.JoinRequest{Id: j.ID, FolderId: j.FolderID, ClusterId: j.ClusterID,
		RaftAddress: j.RaftAddress, ApiAddress: j.APIAddress, GossipAddress: j.GossipAddress, HasState: j.HasState})
	return m.GetClusterId(), err
}

// RemoveMember takes a coordinator that will not come back out of the cluster.
func (c *Client) RemoveMember(ctx context.Context, id string) error {
	_, err := ask(ctx, c.raw.Cluster.RemoveMember, &atelierv1.RemoveMemberRequest{Id: id})
	return err
}

// Transfer hands leadership to a coordinator, "" = any, and returns who leads.
func (c *Client) Transfer(ctx context.Context, id string) (leader string, err error) {
	m, err := ask(ctx, c.raw.Cluster.TransferLeadership, &atelierv1.TransferLeadershipRequest{Id: id})
	return m.GetLeaderId(), err
}

// Node is what one coordinator says of itself.
type Node struct {
	ID           string
	Role         string // leader, follower, candidate
	Leads        bool
	LeaderID     string // as it knows; "" = of none
	ClusterID    string
	Version      string
	Term         uint64
	LastIndex    uint64 // of its log
	CommitIndex  uint64
	AppliedIndex uint64
	Members      []Member // as it knows them; none of an earlier version
}

// Node asks the coordinator at an address: no other is asked, nothing is repeated.
func (c *Client) Node(ctx context.Context, addr string) (Node, error) {
	m, err := ask(ctx, c.raw.Node(addr).GetNode, &atelierv1.GetNodeRequest{})
	return Node{m.GetId(), m.GetRole(), m.GetRole() == "leader", m.GetLeaderId(), m.GetClusterId(), m.GetVersion(),
		m.GetTerm(), m.GetLastLogIndex(), m.GetCommitIndex(), m.GetAppliedIndex(), members(m.GetMembers(), m.GetLeaderId())}, err
}
