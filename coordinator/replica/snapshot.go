package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"atelier/coordinator/state"

	"github.com/hashicorp/raft"
)

func writeSnapshot(v *state.View, w io.Writer) error {
	b := bufio.NewWriterSize(w, 1<<18)
	if _, err := v.WriteTo(b); err != nil {
		return err
	}
	return b.Flush()
}

// SaveSnapshot writes the state for an operator to keep. On a leader it holds
// every write acknowledged before the call; on a follower, what it has applied.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if n.IsLeader() {
		if err := n.VerifyLeader(ctx); err != nil {
			return fmt.Errorf("save snapshot: %w", err)
		}
	}
	if err := writeSnapshot(n.machine.View(), w); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// RestoreSnapshot replaces the state of the whole cluster by a saved one. The
// file is read and checked whole before anything is touched. The cluster's
// members stay what they are; proposals under way end with ErrUnknown, leases
// granted since the snapshot are void, and every subscription is told to begin
// anew.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if err := n.VerifyLeader(ctx); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	file, err := os.CreateTemp(n.cfg.DataDir, "restore-*")
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if _, err := io.Copy(file, r); err != nil {
		return fmt.Errorf("restore snapshot: copy it to %s: %w", n.cfg.DataDir, err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	trial := state.New()
	if err := trial.Restore(file); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	// The members, who was removed and the cluster's id stay what they are.
	trial.KeepIdentity(n.machine.View())
	saved := trial.View()
	trial = nil
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if err := writeSnapshot(saved, file); err != nil {
		return fmt.Errorf("restore snapshot: write it to %s: %w", n.cfg.DataDir, err)
	}
	size, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}

	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: saved.Index(), Size: size}
	done := make(chan error, 1)
	go func() { done <- n.raft.Restore(meta, file, 0) }()
	// Not cut short by ctx: raft reads the file until it is done.
	if err := <-done; err != nil {
		if errors.Is(err, raft.ErrNotLeader) {
			err = n.notLeader()
		}
		return fmt.Errorf("restore snapshot: %w", err)
	}
	return nil
}
