package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"atelier/common/access"
	"atelier/common/identity"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/coordinator/state"
)

// In a closed cluster every request has a caller: the machine that its certificate names, or the
// person, program or trial that its token is of. guard finds it, compares it with what the route
// asks, and lets no handler see a request that is refused.
//
// A follower hands on only what it would answer itself. It hands the token on with the request: the
// leader looks at it again, for its state knows best what was revoked. The certificate that the
// leader sees is then the follower's, so the follower names the machine in callerHeader. The leader
// believes that of a coordinator alone, and takes a request that was handed on without any
// credential for one of nobody.

// callerHeader is the machine whose request a coordinator hands on: ROLE NAME.
const callerHeader = "Atelier-Caller"

// lateWait is how long a node that does not lead waits for a token that it does not know: it may
// have been made a moment ago. maxLate bounds how many requests wait so.
const (
	lateWait = 500 * time.Millisecond
	maxLate  = 64
)

// callerKey is where a request's context has who sent it.
type callerKey struct{}

// sender is the caller, and what is wrong with its credential.
type sender struct {
	access.Caller
	fault error
}

// callerOf is who sent the request; nobody in an open cluster.
func callerOf(ctx context.Context) access.Caller { return senderOf(ctx).Caller }

func senderOf(ctx context.Context) sender {
	c, _ := ctx.Value(callerKey{}).(sender)
	return c
}

// by is whom the log names for a change: a person, or a coordinator that acts for itself. What
// workers and trials report is listed nowhere but in their trials.
func by(ctx context.Context) string {
	if c := callerOf(ctx); c.Role.Person() || c.Role == access.Coordinator {
		return c.String()
	}
	return ""
}

// errUnknownToken says that this node's state has no such token, which may be newer than the state.
var errUnknownToken = errors.New("this cluster does not know it: it may be of another cluster; log in again: atelier login ADDRESS")

// guard lets through to h whoever the route is for.
func (s *Server) guard(rt *route, h http.Handler) http.Handler {
	if s.cfg.TLS == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need := rt.asks(r.Method)
		caller, err := s.authenticate(r)
		if errors.Is(err, errUnknownToken) && !s.cfg.Lead.Ready() && need != access.Anybody {
			if caller, err = s.later(r); errors.Is(err, errUnknownToken) && s.behind() {
				s.refuse(w, r, s.nobody(nothingDone, "this coordinator does not know the token, which may be newer than its state"))
				return
			}
		}
		switch {
		case need == access.Anybody:
			// Who has a bad credential is nobody here. Only WhoAmI looks at it.
		case err != nil:
			s.deny(w, r, rt, caller, connect.CodeUnauthenticated, err)
			return
		case !need.Allows(caller.Role) && !caller.Known():
			s.deny(w, r, rt, caller, connect.CodeUnauthenticated, errors.New("this cluster is closed, and the request has no token: log in with `atelier login ADDRESS`, or set ATELIER_TOKEN"))
			return
		case !need.Allows(caller.Role):
			s.deny(w, r, rt, caller, connect.CodePermissionDenied, fmt.Errorf("%s has the role %s, and %s needs %s%s", caller, caller.Role, methodOf(rt.path), need.Lowest(), whoGives(need)))
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, sender{caller, err})))
	})
}

// behind reports whether this node's state may lack what the cluster has committed.
func (s *Server) behind() bool {
	stats := s.cfg.Cluster.Stats()
	return stats.LeaderID == "" || stats.AppliedIndex < stats.CommitIndex
}

// whoGives says how a person comes by what is needed.
func whoGives(need access.Need) string {
	role := need.Person()
	if role == access.Nobody {
		return ": no token has it, only a machine that joined by an invitation"
	}
	return fmt.Sprintf(": an admin makes such a token: atelier token create NAME --role %s", role)
}

// methodOf is a path for people: the method's name alone.
func methodOf(path string) string {
	if at := strings.LastIndex(strings.TrimRight(path, "/"), "/"); at > 0 {
		return path[at+1:]
	}
	return path
}

// authenticate finds out who sent a request. An error says what is wrong with the credential; none
// and a caller who is not known: there was none.
func (s *Server) authenticate(r *http.Request) (access.Caller, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		name, ok := identity.Peer(r.TLS)
		if !ok {
			return access.Caller{}, errors.New("the certificate of this connection names no member of the cluster")
		}
		peer := machine(name)
		if peer.Role != access.Coordinator || r.Header.Get(forwardedHeader) == "" {
			return peer, nil
		}
		if said := r.Header.Get(callerHeader); said != "" {
			return handedCaller(said)
		}
	}
	text, given := bearer(r.Header)
	if !given {
		return access.Caller{}, nil
	}
	credential, err := access.Parse(text)
	if err != nil {
		return access.Caller{}, err
	}
	return known(s.cfg.View(), credential, s.now())
}

// machine is the caller that a certificate names.
func machine(n identity.Name) access.Caller {
	role := access.Worker
	if n.Role == identity.Coordinator {
		role = access.Coordinator
	}
	return access.Caller{Role: role, Name: n.Node}
}

// handedCaller is the machine that a coordinator names.
func handedCaller(said string) (access.Caller, error) {
	word, name, _ := strings.Cut(said, " ")
	role, err := access.ParseRole(word, access.Worker, access.Coordinator)
	if err != nil || name == "" {
		return access.Caller{}, errors.New("the request was handed on for a caller that is not a machine")
	}
	return access.Caller{Role: role, Name: name}, nil
}

// bearer is the token of a request.
func bearer(h http.Header) (text string, given bool) {
	kind, text, _ := strings.Cut(h.Get("Authorization"), " ")
	return strings.TrimSpace(text), strings.EqualFold(kind, "bearer")
}

// known is who a credential is of, at a time. What it answers for a good id and a wrong secret is
// what it answers for a wrong id: ids are no secret, and nothing more is learned.
func known(view *state.View, c access.Credential, now int64) (access.Caller, error) {
	hash := c.Hash()
	if sweep, number, ok := access.TrialOf(c.ID); ok {
		if sw, found := view.Sweep(sweep); found {
			if t := sw.Trial(number); t != nil {
				for i := range t.Runs {
					if run := &t.Runs[i]; subtle.ConstantTimeCompare([]byte(run.Credential), hash[:]) == 1 {
						return access.Caller{Role: access.Trial, Name: fmt.Sprintf("%d of sweep %s", number, sweep), ID: c.ID, Sweep: sweep, Trial: number, Run: run.Token}, nil
					}
				}
			}
		}
		return access.Caller{}, fmt.Errorf("credential %s: %w", c, errUnknownToken)
	}
	token, found := view.Token(c.ID)
	if !found || subtle.ConstantTimeCompare(token.Hash[:], hash[:]) != 1 {
		return access.Caller{}, fmt.Errorf("token %s: %w", c, errUnknownToken)
	}
	if why := token.Why(now); why != "" {
		return access.Caller{}, fmt.Errorf("token %s (%s) %s: ask an admin for another: atelier token create NAME --role %s", token.ID, token.Name, why, token.Role)
	}
	return access.Caller{Role: token.Role, Name: token.Name, ID: token.ID}, nil
}

// later authenticates again as this node's state grows, for a while.
func (s *Server) later(r *http.Request) (caller access.Caller, err error) {
	select {
	case s.late <- struct{}{}:
		defer func() { <-s.late }()
	default:
		return caller, errUnknownToken
	}
	for deadline := time.Now().Add(lateWait); ; {
		caller, err = s.authenticate(r)
		if !errors.Is(err, errUnknownToken) || time.Now().After(deadline) {
			return caller, err
		}
		select {
		case <-time.After(lookAgain):
		case <-r.Context().Done():
			return caller, err
		case <-s.done:
			return caller, err
		}
	}
}

// deny answers 401 or 403, in the protocol of the request, and notes it.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, rt *route, caller access.Caller, code connect.Code, why error) {
	who := caller.String()
	if !caller.Known() {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			host = "an unknown address"
		}
		who = "a caller at " + host
	}
	s.Refused(who, methodOf(rt.path), why.Error())
	status := http.StatusForbidden
	if code == connect.CodeUnauthenticated {
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Bearer realm="atelier"`)
	}
	if !errWriter.IsSupported(r) {
		http.Error(w, why.Error(), status)
		return
	}
	errWriter.Write(w, r, connect.NewError(code, why))
}

// handCaller names the machine that a request is handed on for, and nobody else: what a client wrote
// there goes.
func handCaller(out http.Header, c access.Caller) {
	delete(out, callerHeader)
	if c.Role.Machine() {
		out.Set(callerHeader, c.Role.String()+" "+c.Name)
	}
}

// scoped refuses what a caller of narrow reach asks about others: a trial all but itself, a worker
// what is not under its own name.
func (s *Server) scoped() connect.Interceptor {
	return connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if err := s.within(callerOf(ctx), req.Any()); err != nil {
				s.Refused(callerOf(ctx).String(), methodOf(req.Spec().Procedure), connectMessage(err))
				return nil, err
			}
			return next(ctx, req)
		}
	})
}

// ownRuns refuses what a worker reports of another one's run. Of groups the state decides: members
// come and go.
func (s *Server) ownRuns(worker string, events []*atelierv1.RunEvent) error {
	view := s.cfg.View()
	for _, e := range events {
		sw, ok := view.Sweep(e.SweepId)
		if !ok {
			continue
		}
		t := sw.Trial(e.Trial)
		if t == nil {
			continue
		}
		for i := len(t.Runs) - 1; i >= 0; i-- {
			if run := &t.Runs[i]; run.Token == e.Token && run.Group == nil && run.Worker != worker {
				return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("worker %s reports on trial %d of sweep %s, which worker %s carries out", worker, e.Trial, sw.ID, run.Worker))
			}
		}
	}
	return nil
}

// within says why a message is beyond its caller's reach; nil = it is not.
func (s *Server) within(c access.Caller, message any) error {
	switch c.Role {
	case access.Trial:
		sweep, number := "", int64(0)
		switch m := message.(type) {
		case interface {
			GetSweepId() string
			GetTrial() int64
		}:
			sweep, number = m.GetSweepId(), m.GetTrial()
		case interface {
			GetId() string
			GetTrial() int64
		}:
			sweep, number = m.GetId(), m.GetTrial()
		default:
			return nil // about no trial: the node that is asked
		}
		if sweep != c.Sweep || number != c.Trial {
			return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("this credential is for trial %d of sweep %s alone, not for trial %d of sweep %.80q", c.Trial, c.Sweep, number, sweep))
		}
	case access.Worker:
		name, said := "", false
		switch m := message.(type) {
		case interface{ GetWorker() string }:
			name, said = m.GetWorker(), true
		case interface{ GetWorker() *atelierv1.Worker }:
			name, said = m.GetWorker().GetName(), true
		}
		if m, ok := message.(*atelierv1.RelayRequest); ok {
			if err := s.ownRuns(c.Name, m.Events); err != nil {
				return err
			}
		}
		if said && name != c.Name {
			return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the certificate is of worker %s, the request of worker %.80q: give the worker the name that it joined under", c.Name, name))
		}
	}
	return nil
}
