package identity

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// lookEvery bounds a sleep: machines are put to sleep, and clocks set.
	lookEvery = time.Hour
	// retryLow and retryHigh bound the pause after a renewal that failed, which else is a twentieth of the time left.
	retryLow, retryHigh = time.Second, time.Hour
)

// due is when a certificate is to be replaced: after two thirds of its life, and up to a thirtieth of it later, so that
// nodes that joined together do not come together.
func due(h *held, jitter float64) time.Time {
	leaf := h.cert.Leaf
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 + time.Duration(jitter*float64(life/30)))
}

// KeepFresh replaces this node's certificate whenever it is time to, until ctx ends. renew asks for the next one. The new
// one holds for new connections; those that are open stay.
func (s *Store) KeepFresh(ctx context.Context, log *slog.Logger, renew func(context.Context) (Credentials, error)) {
	for jitter := rand.Float64(); ; {
		h := s.held.Load()
		pause := min(due(h, jitter).Sub(s.now()), lookEvery)
		if pause <= 0 {
			c, err := renew(ctx)
			if err == nil {
				err = s.Install(c)
			}
			if ctx.Err() != nil {
				return
			}
			until := s.Certificate().NotAfter
			if err == nil {
				log.Info("this node's certificate was renewed", "member", s.Name(), "until", until)
				continue
			}
			left := until.Sub(s.now())
			pause = min(max(left/20, retryLow), retryHigh)
			if left > 0 {
				log.Warn("this node's certificate could not be renewed; tried again", "in", pause.Round(time.Second), "counts_until", until, "error", err)
			} else {
				log.Error("this node's certificate has expired, the cluster takes it no more: let it join again with an invite (atelier cluster invite)", "expired", until, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// RenewSelf signs this node's next certificate, on a node that holds the authority.
func (s *Store) RenewSelf(context.Context) (Credentials, error) {
	r, err := NewRequest()
	if err != nil {
		return Credentials{}, err
	}
	cert, err := s.Authority().Sign(r.DER, s.Name(), s.now(), NodeLife)
	return Credentials{Node: cert, Key: r.Key}, err
}
