package api

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/replica"
)

// snapshotChunk is the size of a part, far below maxRequest: the receiver needs memory for one
// part.
const snapshotChunk = 256 << 10

// SaveSnapshot streams the state in parts of snapshotChunk bytes, as one view has it:
// the cluster goes on meanwhile.
func (s cluster) SaveSnapshot(ctx context.Context, _ *connect.Request[atelierv1.SaveSnapshotRequest], out *connect.ServerStream[atelierv1.SnapshotChunk]) error {
	w := bufio.NewWriterSize(chunks(func(b []byte) error { return out.Send(&atelierv1.SnapshotChunk{Data: b}) }), snapshotChunk)
	if err := s.cfg.Cluster.SaveSnapshot(ctx, w); err != nil {
		return failure(err)
	}
	return w.Flush()
}

// chunks sends what is written to it as messages.
type chunks func([]byte) error

// Write implements io.Writer.
func (c chunks) Write(b []byte) (int, error) {
	for at := 0; at < len(b); at += snapshotChunk {
		if err := c(b[at:min(at+snapshotChunk, len(b))]); err != nil {
			return at, err
		}
	}
	return len(b), nil
}

// RestoreSnapshot replaces the state. The first message may name the restore, so
// that whoever loses the answer can ask what became of it (inquire). It must not simply be sent again: what was
// written after a restore that did take place would be lost to the second.
func (s cluster) RestoreSnapshot(ctx context.Context, in *connect.ClientStream[atelierv1.SnapshotChunk]) (*connect.Response[atelierv1.RestoreSnapshotResponse], error) {
	body := &unchunk{in: in}
	id := ""
	if in.Receive() {
		id, body.rest = in.Msg().RestoreId, in.Msg().Data
		if in.Msg().Inquire {
			return s.inquire(ctx, id)
		}
	} else if err := in.Err(); err != nil {
		return nil, err
	}
	if id == "" {
		b := make([]byte, 8)
		s.cfg.Random(b)
		id = "r-" + hex.EncodeToString(b)
	}
	done, err := s.cfg.Cluster.RestoreSnapshot(ctx, id, body)
	if err != nil {
		return nil, restoreFailure(ctx, err)
	}
	resp := s.restored(done)
	if err := s.noteAct(ctx, "restore state", id); err != nil { // it took place all the same
		s.cfg.Logger.Warn("who restored the state is not listed", "restore", id, "by", by(ctx), "error", err)
	}
	return connect.NewResponse(resp), nil
}

// restored is the answer about a restore that took place.
func (s cluster) restored(done replica.Restored) *atelierv1.RestoreSnapshotResponse {
	view := s.cfg.View()
	return &atelierv1.RestoreSnapshotResponse{
		Index: done.Index, Sweeps: int64(len(view.Sweeps())), Trials: view.Trials(),
		LeasesEnded: int64(done.LeasesEnded), NoChecksum: !done.File.Checked, TakenMs: done.File.TakenMS,
	}
}

// inquire says for certain what became of a named restore, at whichever node leads now: what of it is not
// committed by now is given up.
func (s cluster) inquire(ctx context.Context, id string) (*connect.Response[atelierv1.RestoreSnapshotResponse], error) {
	if id == "" {
		return nil, invalid("no restore with the id")
	}
	done, err := s.cfg.Cluster.RestoreOutcome(ctx, id)
	if err != nil {
		return nil, restoreFailure(ctx, err)
	}
	return connect.NewResponse(s.restored(done)), nil
}

// restoreFailure: aborted is what did not take place and may be tried again,
// unavailable what is not known; all else is the file's fault.
func restoreFailure(ctx context.Context, err error) error {
	var notLeader *replica.NotLeaderError
	switch {
	case errors.Is(err, replica.ErrNotRestored):
		return connect.NewError(connect.CodeAborted, err)
	case errors.Is(err, replica.ErrUnknown):
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("leadership was lost at the commit of the restore: it took place or it did not (%w)", err))
	case errors.As(err, &notLeader), ctx.Err() != nil:
		return failure(err)
	}
	return connect.NewError(connect.CodeInvalidArgument, err)
}

// unchunk reads a stream of chunks as bytes.
type unchunk struct {
	in   *connect.ClientStream[atelierv1.SnapshotChunk]
	rest []byte
}

// Read implements io.Reader.
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
