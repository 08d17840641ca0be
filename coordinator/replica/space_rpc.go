package replica

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// How a follower tells the leader that its disk is full: in the answers to
// appends and heartbeats, behind its own address in their header, which raft does
// not read. Versions that do not know of it see nothing.
const roomMark = "\x00room:"

func markRoom(header *raft.RPCHeader, r Room) {
	b, err := json.Marshal(r)
	if err == nil {
		header.Addr = append(append(header.Addr[:len(header.Addr):len(header.Addr)], roomMark...), b...)
	}
}

// readRoom returns the zero Room, which is not full, where nothing is said.
func readRoom(header raft.RPCHeader) Room {
	var r Room
	if _, after, ok := strings.Cut(string(header.Addr), roomMark); ok {
		if json.Unmarshal([]byte(after), &r) != nil {
			return Room{}
		}
	}
	return r
}

// errNoRoom goes to the leader as text.
var errNoRoom = errors.New("no room for new entries on this follower's disk")

// SetHeartbeatHandler lets the answers to heartbeats say that the disk is full.
func (t *transport) SetHeartbeatHandler(handle func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		if own := t.own(); own.Full() {
			rpc.RespChan = marked(rpc.RespChan, own)
		}
		handle(rpc)
	})
}

// Consumer is raft's source of requests. While the disk is full, those that bring
// commands or a snapshot are answered here.
func (t *transport) Consumer() <-chan raft.RPC { return t.requests }

func (t *transport) pass() {
	for {
		var rpc raft.RPC
		select {
		case <-t.closed:
			return
		case rpc = <-t.NetworkTransport.Consumer():
		}
		if own := t.own(); own.Full() {
			if own.hard() && refusable(rpc) {
				if rpc.Reader != nil {
					go func() { io.Copy(io.Discard, rpc.Reader); rpc.Respond(&raft.InstallSnapshotResponse{}, errNoRoom) }()
				} else {
					rpc.Respond(&raft.AppendEntriesResponse{}, errNoRoom)
				}
				continue
			}
			if _, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
				rpc.RespChan = marked(rpc.RespChan, own)
			}
		}
		select {
		case <-t.closed:
			return
		case t.requests <- rpc:
		}
	}
}

// refusable reports whether a request would fill the disk further. What raft
// itself needs to elect and to serve reads is let through.
func refusable(rpc raft.RPC) bool {
	switch c := rpc.Command.(type) {
	case *raft.InstallSnapshotRequest:
		return true
	case *raft.AppendEntriesRequest:
		for _, e := range c.Entries {
			if e.Type == raft.LogCommand {
				return true
			}
		}
	}
	return false
}

// marked passes an answer on with the room in it.
func marked(to chan<- raft.RPCResponse, own Room) chan<- raft.RPCResponse {
	from := make(chan raft.RPCResponse, 1)
	go func() {
		answer := <-from
		if r, ok := answer.Response.(*raft.AppendEntriesResponse); ok && r != nil {
			markRoom(&r.RPCHeader, own)
		}
		to <- answer
	}()
	return from
}

// AppendEntries waits while the follower refuses for want of room, rather than
// let raft wait longer after each refusal: heartbeats, which go on beside it, tell
// when there is room.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for {
		err := t.append(id, target, args, resp)
		if err == nil || err.Error() != errNoRoom.Error() {
			return err
		}
		for {
			select {
			case <-t.closed:
				return err
			case <-time.After(spaceEvery):
			}
			if !t.leads(args.Term) {
				return err
			}
			if !t.progress(id).room.hard() {
				break
			}
		}
	}
}
