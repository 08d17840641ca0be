package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"connectrpc.com/connect"
)

// Kind is why an address did not answer a call.
type Kind int

const (
	Gone         Kind = iota // no connection: nobody listens, or nothing is there
	Unresponsive             // connected, and the node does not even say how it is
	Slow                     // connected, and no answer within the attempt's limit
	Broken                   // the connection broke before the answer was whole
	NoLeader                 // it answers, and knows no leader
	Unwilling                // it answers that it cannot, for another reason
)

// Finding is what an address did at the last attempt of a call.
type Finding struct {
	Addr string
	Kind Kind
	Err  error
}

// errSlow is what an attempt is cut off with at its limit.
type errSlow struct{ limit time.Duration }

func (e errSlow) Error() string {
	return fmt.Sprintf("no answer within %s", e.limit.Round(time.Millisecond))
}

// findings are those of one call.
type findings struct {
	trace     httptrace.ClientTrace
	connected atomic.Bool // of the present attempt

	mu      sync.Mutex
	found   []Finding
	present string    // address of the attempt under way; "" = none
	until   time.Time // the call is given up; zero = with its context
}

func newFindings() *findings {
	f := &findings{}
	f.trace.GotConn = func(httptrace.GotConnInfo) { f.connected.Store(true) }
	return f
}

// traced lets an attempt's context tell whether it connected.
func (f *findings) traced(ctx context.Context) context.Context {
	f.connected.Store(false)
	return httptrace.WithClientTrace(ctx, &f.trace)
}

// begin and underWay say where the attempt under way is; "" = nowhere.
func (f *findings) begin(addr string) {
	f.mu.Lock()
	f.present = addr
	f.mu.Unlock()
}

func (f *findings) underWay() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.present
}

// giveUpAt and givesUpAt keep when the call is given up.
func (f *findings) giveUpAt(t time.Time) {
	f.mu.Lock()
	f.until = t
	f.mu.Unlock()
}

func (f *findings) givesUpAt() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.until
}

// note takes down why an attempt failed, and whether another may do better. It
// gives the error of an attempt that was cut off the code of its kind.
func (f *findings) note(ctx context.Context, addr string, err error) (Finding, bool) {
	var kind Kind
	var slow errSlow
	switch {
	case errors.Is(err, errUnresponsive):
		kind = Unresponsive
	case errors.As(err, &slow):
		kind = Slow
	case noLeader(err):
		kind = NoLeader
	case connect.CodeOf(err) == connect.CodeUnavailable && connect.IsWireError(err):
		kind = Unwilling
	case unavailable(err):
		kind = Broken
	case ctx.Err() != nil:
		// Cut off by the caller: what was found before says more.
		return Finding{Addr: addr, Err: err}, true
	default:
		return Finding{}, false
	}
	if !f.connected.Load() && kind <= Broken {
		kind = Gone
	}
	if kind == Unresponsive || kind == Slow || connect.CodeOf(err) == connect.CodeUnknown && !connect.IsWireError(err) {
		err = connect.NewError(connect.CodeUnavailable, err)
	}
	one := Finding{addr, kind, err}
	if ctx.Err() != nil {
		return one, true
	}
	f.set(one)
	return one, true
}

// set keeps one finding an address, the one that tells most.
func (f *findings) set(one Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.IndexFunc(f.found, func(o Finding) bool { return o.Addr == one.Addr }); i >= 0 {
		// What a node said tells more than a last attempt with little time left.
		if one.Kind != Slow || f.found[i].Kind < NoLeader {
			f.found[i] = one
		}
		return
	}
	f.found = append(f.found, one)
}

func (f *findings) list() []Finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.found)
}

// noLeader reports whether a node has said that there is none.
func (f *findings) noLeader() bool {
	return slices.ContainsFunc(f.list(), func(o Finding) bool { return o.Kind == NoLeader })
}

// hopeBeside reports whether an address other than addr answered this call, or
// was not tried by it yet.
func (f *findings) hopeBeside(addr string, all []string) bool {
	found := f.list()
	for _, a := range all {
		i := slices.IndexFunc(found, func(o Finding) bool { return o.Addr == a })
		if a != addr && (i < 0 || found[i].Kind >= Broken) {
			return true
		}
	}
	return false
}

// describe says it for people; addresses of which the same is to be said stand
// together.
func describe(found []Finding) string {
	var texts []string
	at := map[string][]string{}
	for _, f := range found {
		text := f.what()
		if at[text] == nil {
			texts = append(texts, text)
		}
		at[text] = append(at[text], f.Addr)
	}
	for i, text := range texts {
		texts[i] = strings.Replace(text, "ADDR", strings.Join(at[text], ", "), 1)
	}
	return strings.Join(texts, "; ")
}

// what is the text with ADDR, its first, in the address's place.
func (f Finding) what() string {
	switch f.Kind {
	case Gone:
		var op *net.OpError
		var dns *net.DNSError
		switch {
		case errors.As(f.Err, &dns) && dns.IsNotFound:
			return "ADDR: there is no host of this name (DNS: no such host)"
		case errors.Is(f.Err, syscall.ECONNREFUSED):
			return "nothing listens at ADDR (connection refused)"
		case errors.Is(f.Err, errUnresponsive), isSlow(f.Err), errors.As(f.Err, &op) && op.Timeout():
			return "ADDR cannot be reached (nothing comes back from there)"
		case errors.As(f.Err, &op) && op.Err != nil:
			return "ADDR cannot be reached (" + op.Err.Error() + ")"
		}
		return "ADDR cannot be reached (" + Message(f.Err) + ")"
	case Unresponsive, Slow:
		return "ADDR listens and does not answer (" + Message(f.Err) + ")"
	case Broken:
		return "ADDR broke the connection off (" + Message(f.Err) + ")"
	case NoLeader:
		return "ADDR answers and has no leader (" + Message(f.Err) + ")"
	}
	return "ADDR cannot answer now (" + Message(f.Err) + ")"
}

// Brief is the cause in a few words, to be put behind an address.
func (f Finding) Brief() string {
	switch f.Kind {
	case Gone:
		var op *net.OpError
		var dns *net.DNSError
		switch {
		case errors.Is(f.Err, syscall.ECONNREFUSED):
			return "connection refused"
		case errors.As(f.Err, &dns) && dns.IsNotFound:
			return "no such host"
		case errors.Is(f.Err, errNoAddress):
			return "not in touch, address unknown"
		case errors.Is(f.Err, errUnresponsive), isSlow(f.Err), errors.As(f.Err, &op) && op.Timeout():
			return "nothing comes back"
		case errors.As(f.Err, &op) && op.Err != nil:
			return strings.TrimPrefix(op.Err.Error(), "connect: ")
		}
		return Message(f.Err)
	case Unresponsive, Slow:
		return "connects, does not answer"
	case Broken:
		return "breaks the connection off"
	case NoLeader:
		return "up, without a leader"
	}
	return Message(f.Err)
}

// isSlow reports whether an attempt ended by its own limit.
func isSlow(err error) bool {
	var s errSlow
	return errors.As(err, &s)
}

// unavailable reports whether another attempt may find what this one missed: a
// server said so, or the connection broke. A broken connection comes as
// Canceled (reset, broken pipe) or Unknown (cut off in an answer) without a
// server having said either.
func unavailable(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable:
		return true
	case connect.CodeCanceled, connect.CodeUnknown:
		return !connect.IsWireError(err)
	}
	return false
}

// noLeader reports whether a coordinator itself has said so, and not something on the way.
func noLeader(err error) bool {
	return connect.IsWireError(err) && RefusalOf(err).Reason == ReasonNoLeader
}
