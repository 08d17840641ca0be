package cli

import (
	"io"
	"strings"
	"sync"
	"time"

	"atelier/common/client"
	"atelier/common/terminal"
	"atelier/tuner/hint"

	ucli "github.com/urfave/cli/v2"
)

// patience is how long commands that train or watch look for a leader, where
// --retry-for does not say: who has watched a sweep for a night does not want to
// lose it to an election. single is that of single calls: a script decides
// itself whether to wait.
const (
	single   = 5 * time.Second
	patience = time.Minute
)

// retryFor is --retry-for, exactly, where it is given.
func retryFor(c *ucli.Context, otherwise time.Duration) time.Duration {
	if c.IsSet("retry-for") {
		return max(c.Duration("retry-for"), time.Millisecond) // 0 of the client's is for ever
	}
	return otherwise
}

// waiting is the line that says who does not answer, and for how long it is tried
// still. On a terminal it is redrawn, and gone with the answer; elsewhere it is
// written at once and then now and then.
type waiting struct {
	e       *Env
	instead string // what else can be done, "" = nothing

	mu   sync.Mutex
	last time.Time // it was written, where there is no terminal
}

// notice is for client.WithNotice.
func (w *waiting) notice(n *client.Notice) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n == nil {
		w.e.unshow()
		return
	}
	text := n.Text()
	if w.instead != "" {
		text += "; " + w.instead
	}
	if w.e.Live {
		w.e.show(text)
		return
	}
	if now := w.e.Now(); w.last.IsZero() || now.Sub(w.last) >= lineEvery {
		w.last = now
		w.e.say("%s", text)
	}
}

// clusterOf is where the cluster is that a folder of results belongs to: where
// the folder says, unless another address is given, for clusters move. A context
// that is merely in use is not given: the folder may be of another cluster.
func (e *Env) clusterOf(c *ucli.Context, recorded string) string {
	origin := e.addressOrigin(c)
	given := origin == hint.Flag || origin == hint.Environment || origin == hint.Context && (e.given("context") || e.environ("ATELIER_CONTEXT") != "")
	if recorded == "" || given {
		return c.String("addr")
	}
	e.origin = hint.Recorded
	return recorded
}

// addressOrigin is where the address came from that a command line has.
func (e *Env) addressOrigin(c *ucli.Context) hint.Origin {
	switch {
	case e.chosen.context != "":
		return hint.Context
	case !c.IsSet("addr"):
		return hint.Default
	case e.given("addr"):
		return hint.Flag
	}
	return hint.Environment
}

// connect makes a client of these addresses, from wherever they are, that tells
// of its waiting. instead is what a person can do but wait.
func (e *Env) connect(c *ucli.Context, addrs string, retry time.Duration, instead string) (*client.Client, error) {
	if e.origin == hint.Unknown {
		e.origin = e.addressOrigin(c)
	}
	if e.chosen.fault != nil && e.origin == hint.Default {
		return nil, e.chosen.fault
	}
	list, err := client.ParseAddrs(addrs)
	if err != nil {
		return nil, usage("%s: %s", e.origin.Name(), err)
	}
	opts, err := e.credentials(list)
	if err != nil {
		return nil, err
	}
	opts = append(opts, client.WithRetryFor(retry))
	if !c.Bool("quiet") {
		opts = append(opts, client.WithNotice((&waiting{e: e, instead: instead}).notice))
	}
	return client.New(list, opts...), nil
}

// withoutCluster is what else a command that works without a cluster can do.
func withoutCluster(c *ucli.Context) string {
	return map[string]string{"train": "--local trains here", "tune": "--local tunes here", "infer": "--local runs it here"}[c.Command.Name]
}

// standing is the line that a notice keeps on the terminal until the next
// message; messages come from several goroutines.
type standing struct {
	mu sync.Mutex
	up bool
}

// show draws a line that the next message takes away.
func (e *Env) show(text string) {
	text = e.fit(text)
	e.line.mu.Lock()
	defer e.line.mu.Unlock()
	e.line.up = true
	io.WriteString(e.Err, "\r\x1b[K"+terminal.Line(text))
}

// unshow takes it away, if it is there still.
func (e *Env) unshow() {
	e.line.mu.Lock()
	defer e.line.mu.Unlock()
	if e.line.up {
		e.line.up = false
		io.WriteString(e.Err, "\r\x1b[K")
	}
}

// fit cuts a line to the terminal's width: one that wraps could not be taken away
// again.
func (e *Env) fit(text string) string {
	if w := e.Width() - 1; len(text) > w {
		text = strings.ToValidUTF8(text[:max(w, 0)], "")
	}
	return text
}
