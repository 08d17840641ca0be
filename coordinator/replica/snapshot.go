package replica

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"atelier/common/snapshot"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

func writeSnapshot(v *state.View, w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<18)
	if _, err := v.WriteTo(b); err != nil {
		return err
	}
	return b.Flush()
}

// SaveSnapshot writes the state for an operator to keep, as a file of
// common/snapshot. On a leader it holds every write acknowledged before the call;
// on a follower, what it has applied.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if n.IsLeader() {
		if err := n.VerifyLeader(ctx); err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
	}
	file, err := snapshot.NewWriter(w, time.Now().UnixMilli())
	if err == nil {
		err = writeSnapshot(n.machine.View().Settled(), file)
	}
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// ErrNotRestored is in every error of RestoreSnapshot after which it is certain
// that the state was not replaced. Without it and without ErrUnknown the file is
// at fault.
var ErrNotRestored = errors.New("the restore did not take place, nothing was changed")

// Restored is what a restore brought about.
type Restored struct {
	Index       uint64 // of its commit
	LeasesEnded int
	File        snapshot.Info
}

// restorePart is how many bytes of the state go into one log entry.
const restorePart = 256 << 10

// commitTimeout bounds the wait for the commit of a restore.
const commitTimeout = 30 * time.Second

// RestoreSnapshot replaces the state of the whole cluster by a saved one, under
// an id that no other restore has had. The file is read and checked whole before
// the first command; then it goes through the log, and takes the place of the
// state on every replica at one index, or on none. What the present keeps, and
// that all leases end, is the state machine's doing.
func (n *Node) RestoreSnapshot(ctx context.Context, id string, r io.Reader) (Restored, error) {
	var done Restored
	if err := n.VerifyLeader(ctx); err != nil {
		return done, fmt.Errorf("restore snapshot: %w", err)
	}
	file, err := os.CreateTemp(n.cfg.DataDir, "restore-*")
	if err != nil {
		return done, fmt.Errorf("restore snapshot: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	sum := sha256.New()
	if done.File, err = snapshot.Copy(io.MultiWriter(file, sum), r); err != nil {
		return done, fmt.Errorf("restore snapshot: nothing was changed: %w", err)
	}
	if err := readable(file); err != nil {
		return done, fmt.Errorf("nothing was changed: %w", err)
	}
	begin := &logv1.BeginRestore{Id: id, Bytes: done.File.Bytes, Sha256: sum.Sum(nil), Format: state.StreamFormat, TakenMs: done.File.TakenMS}
	began := time.Now()
	if err := n.stage(ctx, begin, file); err != nil {
		n.abandon(ctx, id, err)
		return done, n.notRestored(err)
	}
	// Whoever asked may have gone away: what it comes to must be known all the same.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	result, err := n.Propose(last, &logv1.Command{TimeMs: time.Now().UnixMilli(), Op: &logv1.Command_CommitRestore{CommitRestore: &logv1.CommitRestore{Id: id}}})
	switch {
	case errors.Is(err, ErrUnknown):
		return done, fmt.Errorf("restore snapshot: %w", err)
	case err != nil:
		n.abandon(ctx, id, err)
		return done, n.notRestored(err)
	case result.Err != nil:
		return done, n.notRestored(result.Err)
	}
	done.Index = result.Index
	for i := range result.Changes {
		if result.Changes[i].Kind == state.LeaseEnded {
			done.LeasesEnded++
		}
	}
	n.log.Info("state restored from a snapshot", "id", id, "index", done.Index, "bytes", done.File.Bytes, "leases_ended", done.LeasesEnded,
		"took", time.Since(began).Round(time.Millisecond))
	return done, nil
}

// readable makes sure that the file holds a state that every replica will take.
func readable(file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := state.New().Restore(file); err != nil {
		return err
	}
	_, err := file.Seek(0, io.SeekStart)
	return err
}

// stage brings the file into the log, part after part.
func (n *Node) stage(ctx context.Context, begin *logv1.BeginRestore, file io.Reader) error {
	put := func(c *logv1.Command) error {
		result, err := n.Propose(ctx, c)
		if err == nil {
			err = result.Err
		}
		return err
	}
	if err := put(&logv1.Command{Op: &logv1.Command_BeginRestore{BeginRestore: begin}}); err != nil {
		return err
	}
	part := make([]byte, restorePart)
	for at := int64(0); at < begin.Bytes; {
		size, err := io.ReadFull(file, part)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read its copy again: %w", err)
		}
		err = put(&logv1.Command{Op: &logv1.Command_StageRestore{StageRestore: &logv1.StageRestore{Id: begin.Id, Offset: at, Data: part[:size]}}})
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", at, begin.Bytes, err)
		}
		at += int64(size)
	}
	return nil
}

// abandon drops what was staged, as far as this node still leads; else the next
// leader does.
func (n *Node) abandon(ctx context.Context, id string, why error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), enqueueTimeout)
	defer cancel()
	_, err := n.Propose(ctx, &logv1.Command{Op: &logv1.Command_AbortRestore{AbortRestore: &logv1.AbortRestore{Id: id, Reason: why.Error()}}})
	if err != nil {
		n.log.Info("an abandoned restore stays staged until the next leader drops it", "id", id, "error", err)
	}
}

// notRestored is for errors before the commit was handed to raft. They must not
// look like those of a command that may be in the log, or that may be repeated
// elsewhere as it is: the file has been read.
func (n *Node) notRestored(err error) error {
	return fmt.Errorf("restore snapshot: %w: %v", ErrNotRestored, err)
}

// RestoreOutcome reports whether the restore of an id took place, and for certain:
// what of it is not committed by now is given up. On the leader only.
func (n *Node) RestoreOutcome(ctx context.Context, id string) (Restored, error) {
	result, err := n.Propose(ctx, &logv1.Command{Op: &logv1.Command_AbortRestore{AbortRestore: &logv1.AbortRestore{Id: id, Reason: "asked for the outcome"}}})
	if err == nil {
		err = result.Err
	}
	if err != nil {
		return Restored{}, fmt.Errorf("ask for the outcome of restore %s: %w", id, err)
	}
	if last, index := n.machine.View().Restored(); last == id {
		return Restored{Index: index}, nil
	}
	return Restored{}, fmt.Errorf("restore snapshot: %w", ErrNotRestored)
}

// DropStaged gives up what a restore under an earlier leader has left staged.
func (n *Node) DropStaged(ctx context.Context) error {
	id := n.machine.View().Staging()
	if id == "" {
		return nil
	}
	result, err := n.Propose(ctx, &logv1.Command{Op: &logv1.Command_AbortRestore{AbortRestore: &logv1.AbortRestore{Id: id, Reason: "its leader is gone"}}})
	if err == nil {
		n.log.Warn("a restore was cut off by a change of leader and is given up; nothing was changed", "id", id)
		err = result.Err
	}
	return err
}
