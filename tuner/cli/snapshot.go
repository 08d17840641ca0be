package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"atelier/common/client"
	"atelier/common/files"
	"atelier/common/snapshot"

	ucli "github.com/urfave/cli/v2"
)

const (
	// outcomeWait is how long it is asked what became of a restore that got no
	// answer: a new leader must have been elected meanwhile.
	outcomeWait = 20 * time.Second
)

// saveSnapshot writes the file beside its place, reads it again, and only then
// puts it there: an earlier snapshot is not given up for one that a full disk or a broken connection cut short.
func (e *Env) saveSnapshot(c *ucli.Context) error {
	api, err := e.client(c)
	if err != nil {
		return err
	}
	defer api.Close()
	to := c.Args().First()
	out := e.Out
	var tmp *files.Pending
	replaces := false
	if to != "-" {
		to = e.path(to)
		if replaces, err = e.place(c, to, func() bool { return isSnapshot(to) }); err != nil {
			return err
		}
		if tmp, err = files.Create(to, 0o600); err != nil {
			return err
		}
		defer tmp.Abort()
		out = tmp
	}
	// What comes is checked while it passes; the file once more as the disk gives it
	// back.
	passing, check := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		_, err := snapshot.Copy(io.Discard, passing)
		passing.CloseWithError(err)
		checked <- err
	}()
	// How large it will be the cluster does not know: the line counts, and has no end.
	b, sofar := bar{e: e, quiet: !e.Live}, int64(0)
	n, err := api.SaveSnapshot(c.Context, writer(func(data []byte) (int, error) {
		n, err := out.Write(data)
		if err == nil {
			check.Write(data) // its error comes below
			sofar += int64(n)
			b.draw(e.Now(), "saved "+bytesOf(sofar))
		}
		return n, err
	}))
	b.clear()
	check.CloseWithError(err)
	if found := <-checked; err != nil {
		return err
	} else if found != nil {
		return fmt.Errorf("the snapshot did not come whole: %w", found)
	}
	if tmp != nil {
		if err := tmp.Sync(); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		info, err := checkSnapshot(tmp.File)
		if err != nil {
			return fmt.Errorf("read the snapshot again: %w", err)
		}
		if !info.Checked {
			e.say("warning: this cluster's version writes no checksum into snapshots: damage to the file will not show")
		}
		if err := tmp.Commit(); err != nil {
			return fmt.Errorf("write the snapshot: %w", err)
		}
		e.replaced(c, to, replaces)
	}
	e.say("snapshot of %s saved", bytesOf(n))
	return nil
}

// isSnapshot tells an earlier snapshot, perhaps a damaged one, from other files.
func isSnapshot(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := snapshot.Copy(io.Discard, f)
	return err == nil && info.Checked || errors.Is(err, snapshot.ErrDamaged)
}

// writer is a function that is written to.
type writer func([]byte) (int, error)

// Write implements io.Writer.
func (w writer) Write(b []byte) (int, error) { return w(b) }

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

// restoreSnapshot replaces the state of the whole cluster, and so wants --yes. The file is checked
// before a byte is sent. The restore has an id of its own: when the answer is lost, what became of
// it is asked, and never guessed or done again, for a second restore would undo what was written
// after the first.
func (e *Env) restoreSnapshot(c *ucli.Context) error {
	// The first thing: nothing is opened or asked for by a slip.
	if !c.Bool("yes") {
		return usage("cluster restore replaces the cluster's whole state; confirm with --yes")
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
	// The name by which the outcome can be asked for, made before anything is sent.
	id, b := client.NewRequestID(), bar{e: e, quiet: !e.Live}
	r, err := api.RestoreSnapshot(c.Context, id, in, func(sent int64) {
		switch {
		case total > sent:
			b.draw(e.Now(), fmt.Sprintf("sent %s of %s", bytesOf(sent), bytesOf(total)))
		case total > 0:
			b.draw(e.Now(), fmt.Sprintf("sent %s; the cluster checks it and brings it to every coordinator", bytesOf(sent)))
		default:
			b.draw(e.Now(), "sent "+bytesOf(sent))
		}
	})
	b.clear()
	if errors.Is(err, client.ErrUncertain) {
		r, err = e.whatBecame(c.Context, api, id, err)
	}
	if client.CodeOf(err) == client.CodeInvalidArgument {
		return fmt.Errorf("%s: %w", c.Args().First(), err)
	}
	if err != nil {
		return err
	}
	if r.NoChecksum {
		e.say("warning: the file carries no checksum, it is of a version that wrote none: only its form was checked")
	}
	e.say("restored: %s, %s, at index %d", plural(r.Sweeps, "sweep"), plural(r.Trials, "trial"), r.Index)
	if ms := r.TakenMS; ms > 0 {
		e.say("the state is that of %s", time.UnixMilli(ms).Format("2006-01-02 15:04:05 -0700"))
	}
	if n := r.LeasesEnded; n > 0 {
		e.say("%d trials were running in it: their leases have ended and they wait again", n)
	}
	return nil
}

// whatBecame asks the leader there is now what became of a restore. Its answer is final: what is not committed by
// then is given up there.
func (e *Env) whatBecame(ctx context.Context, api *client.Client, id string, cause error) (*client.Restored, error) {
	e.say("no answer to the restore (%s); asking for its outcome", client.Message(cause))
	// An interrupted person wants to know, too.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), outcomeWait)
	defer cancel()
	r, err := api.RestoreOutcome(ctx, id)
	switch {
	case err == nil:
		e.say("it took place")
	case client.CodeOf(err) == client.CodeAborted:
		err = fmt.Errorf("%w: run the command again", err)
	default:
		err = fmt.Errorf("it is not known whether the restore took place (%s): see which sweeps `atelier sweep list` names, and run the command again where they are not those of the file",
			client.Message(err))
	}
	return r, err
}
