package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
)

// startBare starts three nodes of the library with its default settings, but for
// MaxRPCsInFlight 1, which is how the replica runs it.
func startBare(dir, store string, size int) (*target, error) {
	var nodes []*raft.Raft
	var closers []io.Closer
	closeAll := func() {
		for _, r := range nodes {
			r.Shutdown().Error()
		}
		for _, c := range closers {
			c.Close()
		}
	}
	var configuration raft.Configuration
	var start []func() (*raft.Raft, error)
	for i := range 3 {
		id := raft.ServerID(fmt.Sprintf("n%d", i+1))
		folder := filepath.Join(dir, string(id))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
		var logs interface {
			raft.LogStore
			raft.StableStore
			io.Closer
		}
		var err error
		if store == "raft-wal" {
			logs, err = wal.Open(folder)
		} else {
			logs, err = boltdb.New(boltdb.Options{Path: filepath.Join(folder, "raft.db")})
		}
		if err != nil {
			closeAll()
			return nil, err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			closeAll()
			return nil, err
		}
		quiet := hclog.NewNullLogger()
		transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: loopback{l}, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: 5 * time.Second, Logger: quiet})
		closers = append(closers, transport, logs)
		configuration.Servers = append(configuration.Servers, raft.Server{ID: id, Address: transport.LocalAddr()})
		start = append(start, func() (*raft.Raft, error) {
			rc := raft.DefaultConfig()
			rc.LocalID = id
			rc.Logger = quiet
			snapshots := raft.NewDiscardSnapshotStore()
			if err := raft.BootstrapCluster(rc, logs, logs, snapshots, transport, configuration); err != nil {
				return nil, err
			}
			return raft.NewRaft(rc, nothing{}, logs, logs, snapshots, transport)
		})
	}
	for _, s := range start {
		r, err := s()
		if err != nil {
			closeAll()
			return nil, err
		}
		nodes = append(nodes, r)
	}
	var leader *raft.Raft
	for deadline := time.Now().Add(10 * time.Second); leader == nil; time.Sleep(10 * time.Millisecond) {
		for _, r := range nodes {
			if r.State() == raft.Leader && r.Barrier(time.Second).Error() == nil {
				leader = r
			}
		}
		if leader == nil && time.Now().After(deadline) {
			closeAll()
			return nil, fmt.Errorf("three nodes of the bare library elect no leader")
		}
	}
	data := make([]byte, size)
	return &target{write: func(int) error { return leader.Apply(data, 10*time.Second).Error() }, close: closeAll}, nil
}

type loopback struct{ net.Listener }

func (loopback) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(to), timeout)
}

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(sink raft.SnapshotSink) error {
	return sink.Close()
}
func (nothing) Release() {}
