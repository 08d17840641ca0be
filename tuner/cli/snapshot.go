package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/snapshot"

	"connectrpc.com/connect"
	ucli "github.com/urfave/cli/v2"
)

const (
	// snapshotChunk keeps messages well below what a server takes at once.
	snapshotChunk = 256 << 10
	// outcomeWait is how long it is asked what became of a restore that got no
	// answer: a new leader must have been elected meanwhile.
	outcomeWait = 20 * time.Second
)

// saveSnapshot writes the file beside its place, reads it again, and only then
// puts it there.
func (e *Env) saveSnapshot(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	to := c.Args().First()
	out := e.Out
	var tmp *os.File
	if to != "-" {
		to = e.path(to)
		if tmp, err = os.CreateTemp(filepath.Dir(to), ".snapshot-*"); err != nil {
			return err
		}
		defer os.Remove(tmp.Name())
		defer tmp.Close()
		out = tmp
	}
	s, err := api.Cluster.SaveSnapshot(c.Context, connect.NewRequest(&atelierv1.SaveSnapshotRequest{}))
	if err != nil {
		return err
	}
	defer s.Close()
	// What comes is checked while it passes; the file once more as the disk gives it
	// back.
	passing, check := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		_, err := snapshot.Copy(io.Discard, passing)
		passing.CloseWithError(err)
		checked <- err
	}()
	var n int64
	for s.Receive() {
		data := s.Msg().GetData()
		if _, err := out.Write(data); err != nil {
			check.CloseWithError(err)
			return fmt.Errorf("write the snapshot: %w", err)
		}
		check.Write(data) // its error comes below
		n += int64(len(data))
		e.progress("saved %s", bytesOf(n))
	}
	e.progress("")
	check.CloseWithError(s.Err())
	if err := errors.Join(s.Err(), <-checked); err != nil {
		return fmt.Errorf("the snapshot did not come whole: %w", errors.Join(s.Err(), err))
	}
	if tmp != nil {
		if err := tmp.Sync(); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		info, err := checkSnapshot(tmp)
		if err != nil {
			return fmt.Errorf("read the snapshot again: %w", err)
		}
		if !info.Checked {
			e.say("warning: this cluster's version writes no checksum into snapshots: damage to the file will not show")
		}
		if err := tmp.Close(); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		if err := os.Rename(tmp.Name(), to); err != nil {
			return err
		}
	}
	e.say("snapshot of %s saved", bytesOf(n))
	return nil
}

// checkSnapshot reads a file from its start and goes back there.
func checkSnapshot(f *os.File) (snapshot.Info, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return snapshot.Info{}, err
	}
	info, err := snapshot.Copy(io.Discard, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return info, err
}

// progress redraws a line on a terminal; an empty one takes it away.
func (e *Env) progress(format string, a ...any) {
	if e.Live {
		fmt.Fprintf(e.Err, "\r\x1b[K"+format, a...)
	}
}

func (e *Env) restoreSnapshot(c *ucli.Context) error {
	if !c.Bool("yes") {
		return usage("cluster restore replaces all that the cluster knows; say --yes if that is meant")
	}
	in, total := e.In, int64(0)
	if from := c.Args().First(); from != "-" {
		f, err := os.Open(e.path(from))
		if err != nil {
			return err
		}
		defer f.Close()
		// Before anything is sent; from a pipe only the cluster can check it.
		if _, err := checkSnapshot(f); err != nil {
			return fmt.Errorf("%s: %w; nothing was changed", from, err)
		}
		if info, err := f.Stat(); err == nil {
			total = info.Size()
		}
		in = f
	}
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	id := requestID()
	r, err := e.sendSnapshot(c.Context, api, id, in, total)
	if unsure(err) {
		r, err = e.whatBecame(c.Context, api, id, err)
	}
	if err != nil {
		return err
	}
	if r.GetNoChecksum() {
		e.say("warning: the file carries no checksum, it is of a version that wrote none: only its form was checked")
	}
	e.say("restored: %d sweeps, %d trials, at index %d", r.GetSweeps(), r.GetTrials(), r.GetIndex())
	if ms := r.GetTakenMs(); ms > 0 {
		e.say("the state is that of %s", time.UnixMilli(ms).Format("2006-01-02 15:04:05 -0700"))
	}
	if n := r.GetLeasesEnded(); n > 0 {
		e.say("%d trials were running in it: their leases have ended and they wait again", n)
	}
	return nil
}

// sendSnapshot sends the file and waits for the answer.
func (e *Env) sendSnapshot(ctx context.Context, api *client.Client, id string, in io.Reader, total int64) (*atelierv1.RestoreSnapshotResponse, error) {
	defer e.progress("")
	s := api.Cluster.RestoreSnapshot(ctx)
	buf := make([]byte, snapshotChunk)
	name := id // in the first message
	var sent int64
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 {
			if err := s.Send(&atelierv1.SnapshotChunk{Data: buf[:n], RestoreId: name}); err != nil {
				break // the answer says why
			}
			name = ""
			sent += int64(n)
			if total > 0 {
				e.progress("sent %s of %s", bytesOf(sent), bytesOf(total))
			} else {
				e.progress("sent %s", bytesOf(sent))
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the snapshot: %w; nothing was changed", err)
		}
	}
	e.progress("sent %s; the cluster checks it and brings it to every coordinator", bytesOf(sent))
	r, err := s.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// unsure reports errors that leave open whether the restore took place.
func unsure(err error) bool {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return false // nobody got anything
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal, connect.CodeCanceled, connect.CodeDeadlineExceeded:
		var answered *connect.Error
		return errors.As(err, &answered)
	}
	return false
}

// whatBecame asks whichever leader there is what became of a restore.
func (e *Env) whatBecame(ctx context.Context, api *client.Client, id string, cause error) (*atelierv1.RestoreSnapshotResponse, error) {
	e.say("no answer to the restore (%s); asking what became of it", client.Message(cause))
	// An interrupted person wants to know, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeWait)
	defer cancel()
	addrs := api.Addrs()
	for i := 0; ; i++ {
		// One coordinator after the other: the one that was asked first may be gone.
		one, done := context.WithTimeout(ctx, outcomeWait/4)
		s := api.Node(addrs[i%len(addrs)]).RestoreSnapshot(one)
		s.Send(&atelierv1.SnapshotChunk{RestoreId: id, Inquire: true}) // the answer has its error
		r, answer := s.CloseAndReceive()
		done()
		switch {
		case answer == nil:
			e.say("it took place")
			return r.Msg, nil
		case connect.CodeOf(answer) == connect.CodeAborted:
			return nil, fmt.Errorf("%w: run the command again", answer)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("it is not known whether the restore took place (%s): see which sweeps `atelier sweep list` names, and run the command again where they are not those of the file",
				client.Message(answer))
		case <-time.After(300 * time.Millisecond):
		}
	}
}
