package replica

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// A log that runs into a full disk ends the node, and at a rotation of segments
// that happens to several nodes at once. So below a floor of free space a node
// takes no new commands, while reads, heartbeats and elections go on: raft's own
// entries are small and go into the segment that is there. Above the floor again,
// writes go on by themselves.
//
// A follower tells the leader in each answer (space_rpc.go). A leader refuses
// commands when it or all but a minority lack room, and hands over to a quorum
// that has room. A follower refuses commands itself only below three quarters of
// the floor: by then the leader has heard of it, and what was under way is in.

const (
	segmentBytes = 64 << 20 // of the log, allocated whole
	spaceEvery   = 250 * time.Millisecond
)

// Room is the free space of a node's data folder, in bytes.
type Room struct {
	Node   string
	Folder string
	Free   uint64
	Need   uint64 // the floor
}

// Full reports whether the node takes no new commands.
func (r Room) Full() bool { return r.Free < r.Need }

// hard reports whether it refuses those of the leader, too.
func (r Room) hard() bool { return r.Free < r.Need/4*3 }

// String says whose disk it is, and how much is free of how much that is kept free.
func (r Room) String() string {
	return fmt.Sprintf("%s has %s free in %s and keeps %s free", r.Node, megabytes(r.Free), r.Folder, megabytes(r.Need))
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// NoSpaceError says that nothing was written because disks are full.
type NoSpaceError struct{ Rooms []Room }

func (e *NoSpaceError) Error() string {
	var list []string
	for _, r := range e.Rooms {
		list = append(list, r.String())
	}
	return "no room for new entries, nothing was written: " + strings.Join(list, "; ") +
		". Make room there (or lower --min-free); reads continue, and writes resume by themselves once there is room"
}

// space watches the free space of one data folder.
type space struct {
	node, folder string
	floor        uint64 // 0 = from segments and snapshots
	room         atomic.Pointer[Room]
}

// newSpace has looked once before it returns: the first command is judged by a fact.
func newSpace(node, folder string, floor uint64) *space {
	s := &space{node: node, folder: folder, floor: floor}
	s.look()
	return s
}

// look asks the file system; a hung disk leaves the last answer standing.
func (s *space) look() {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.folder, &fs); err != nil {
		return
	}
	need := s.floor
	if need == 0 {
		need = 2*segmentBytes + 2*newestSnapshot(filepath.Join(s.folder, "snapshots"))
	}
	s.room.Store(&Room{Node: s.node, Folder: s.folder, Free: fs.Bavail * uint64(fs.Bsize), Need: need})
}

// now is what the last look found.
func (s *space) now() Room {
	if r := s.room.Load(); r != nil {
		return *r
	}
	return Room{Node: s.node, Folder: s.folder}
}

// newestSnapshot is the size of the largest snapshot, in bytes.
func newestSnapshot(dir string) uint64 {
	list, _ := os.ReadDir(dir)
	size := uint64(0)
	for _, e := range list {
		if info, err := os.Stat(filepath.Join(dir, e.Name(), "state.bin")); err == nil {
			size = max(size, uint64(info.Size()))
		}
	}
	return size
}

// watchSpace looks again and again, tells the log when room goes and comes, and
// hands leadership to a node with room where a quorum has it.
func (n *Node) watchSpace() {
	defer n.loops.Done()
	tick := time.NewTicker(spaceEvery)
	defer tick.Stop()
	was := false
	var handed time.Time
	for {
		select {
		case <-n.stop:
			return
		case <-tick.C:
		}
		n.space.look()
		room := n.space.now()
		if full := room.Full(); full != was {
			was = full
			if full {
				n.log.Warn("no room for new entries: this node takes none until there is", "free", megabytes(room.Free), "needed", megabytes(room.Need), "folder", room.Folder)
			} else {
				n.log.Info("there is room for new entries again", "free", megabytes(room.Free), "folder", room.Folder)
			}
		}
		if !room.Full() || n.raft.State() != raft.Leader || time.Since(handed) < 10*time.Second {
			continue
		}
		if to := n.rooms(room).better; to != "" {
			handed = time.Now()
			n.loops.Add(1)
			go n.handOver(to)
		}
	}
}

// handOver is tried once; the next look tries again.
func (n *Node) handOver(to string) {
	defer n.loops.Done()
	ctx, cancel := n.within(5 * time.Second)
	defer cancel()
	err := n.Transfer(ctx, to)
	n.log.Info("leadership handed to a node with room on its disk", "to", to, "error", err)
}

// rooms is what a leader knows of the voters' disks.
type rooms struct {
	full   []Room
	enough bool   // a majority, this node among it, can take new commands
	better string // a voter that could lead in its place
}

// rooms counts a voter that is not heard of neither as full nor as having room: only those that
// could carry a command are a majority.
func (n *Node) rooms(own Room) rooms {
	var r rooms
	voters, withRoom := 0, 0
	for _, s := range n.Configuration() {
		if !s.Voter {
			continue
		}
		voters++
		if s.ID == n.cfg.ID {
			if own.Full() {
				r.full = append(r.full, own)
			} else {
				withRoom++
			}
			continue
		}
		p := n.transport.progress(raft.ServerID(s.ID))
		switch {
		case p.room.Full():
			r.full = append(r.full, p.room)
		case time.Since(p.contact) < 4*n.cfg.HeartbeatTimeout:
			withRoom++
			r.better = s.ID
		}
	}
	sort.Slice(r.full, func(i, j int) bool { return r.full[i].Node < r.full[j].Node })
	r.enough = !own.Full() && (len(r.full) == 0 || withRoom > voters/2)
	if withRoom <= voters/2 {
		r.better = ""
	}
	return r
}

// admit refuses a command for which there is no room.
func (n *Node) admit() error {
	own := n.space.now()
	if !own.Full() && n.transport.full.Load() == 0 {
		return nil // the usual case, without a look at the members
	}
	if r := n.rooms(own); !r.enough {
		return &NoSpaceError{r.full}
	}
	return nil
}
