package replica

import (
	"encoding/json"
	"errors"
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

// errNoRoom is what raft gets for a follower's append that is refused.
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

// allowance is how many bytes of commands a follower still takes on a full disk:
// those under way when the leader heard of it. A leader elected later has them in
// its log before the entry that it must commit to serve reads.
const allowance = 2*maxCommandBytes + 1<<20

// refuses reports whether a follower's append would fill the disk further. What
// raft itself needs to elect and to serve reads is let through; and so is what
// takes the place of entries just deleted: raft would go on to count those. It is
// for the one goroutine that appends.
func (g *guard) refuses(logs []*raft.Log) bool {
	if g.room == nil || !g.room().hard() || g.leads() {
		g.spent = 0
		return false
	}
	size := 0
	for _, l := range logs {
		if l.Type == raft.LogCommand {
			size += len(l.Data)
		}
	}
	if size > 0 && g.spent+size > allowance && !g.truncated.Load() {
		return true
	}
	g.spent += size
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
// let raft take the refusal for a log that differs, look for the place further and
// further back, and wait longer each time. Heartbeats, which go on beside it, tell
// when there is room.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for {
		err := t.append(id, target, args, resp)
		if err != nil || resp.Success || len(args.Entries) == 0 || resp.LastLog < args.PrevLogEntry || !t.progress(id).room.hard() {
			return err
		}
		for t.progress(id).room.hard() {
			select {
			case <-t.closed:
				return errNoRoom
			case <-time.After(spaceEvery):
			}
			if !t.leads(args.Term) {
				return errNoRoom
			}
		}
	}
}
