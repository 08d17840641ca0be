package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"atelier/common/client"
	"atelier/common/identity"
)

// tlsFolder is where the identity of a worker with that data folder is.
func tlsFolder(data string) string { return filepath.Join(data, "tls") }

// openIdentity opens the worker's identity, where its data folder holds one: its cluster is closed.
func (m *Main) openIdentity(ctx context.Context, home *home) error {
	dir := tlsFolder(m.Config.Data)
	there, err := identity.Exists(dir)
	if err == nil && there {
		if m.store, err = identity.Open(dir); err != nil {
			err = fmt.Errorf("the identity of this worker: %w", err)
		}
	}
	// An expired one is not renewed: only an invitation lets the worker in again.
	if err == nil && m.Config.Invitation != nil && (!there || time.Now().After(m.store.Certificate().NotAfter)) {
		err = m.enroll(ctx, dir, home)
		there = err == nil
	}
	if err != nil || !there {
		return err
	}
	if n := m.store.Name(); n.Role != identity.Worker || n.Node != m.Config.Name {
		return fmt.Errorf("%s is the identity of %s, not of worker %s: give each node its own --data", dir, n, m.Config.Name)
	}
	return nil
}

// enroll joins the closed cluster that this worker is invited to.
func (m *Main) enroll(ctx context.Context, dir string, home *home) error {
	i := m.Config.Invitation
	m.log.Info("joins a closed cluster", "api", i.Addresses, "fingerprint", i.Fingerprint)
	e, err := client.Enroll(ctx, *i, identity.Worker, m.Config.Name, func(err error) {
		m.health.report("cannot join: " + client.Message(err))
		m.log.Warn("waiting to join", "api", i.Addresses, "error", err)
	})
	if err != nil {
		return fmt.Errorf("--join: %s", client.Message(err))
	}
	// Where the cluster is first: with its identity the folder needs no invitation any more.
	if err := home.change(func(r *homeRecord) { r.Seeds, r.APIs = e.Gossip, e.API }); err != nil {
		return err
	}
	m.store, err = identity.Create(dir, e.Credentials)
	return err
}

// guard does the handshakes at the worker's port. Members show a certificate; who shows none may see how the worker is.
func (m *Main) guard(l net.Listener) net.Listener {
	return identity.Listen(l, m.store.ServerTLS(tls.VerifyClientCertIfGiven, nil), identity.Options{Refused: identity.LogRefused(m.log, "files")})
}

// members lets only members of the cluster in, in a closed one.
func (m *Main) members(h http.Handler) http.Handler {
	if m.store == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := identity.Peer(r.TLS); !ok {
			http.Error(w, "only members of the cluster may ask a worker: coordinators pass on its files and logs to whoever has a token", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// apiTLS is for calls to the API, fileTLS for the file servers of other workers; nil where the cluster is open.
func (m *Main) apiTLS() *tls.Config  { return m.tlsFor("the API", identity.Coordinator) }
func (m *Main) fileTLS() *tls.Config { return m.tlsFor("a worker's files", identity.Worker) }

func (m *Main) tlsFor(what string, role identity.Role) *tls.Config {
	if m.store == nil {
		return nil
	}
	return m.store.ClientTLS(identity.Only(what, role))
}

// dialWorker connects to the agent of one worker and no other.
func (m *Main) dialWorker(ctx context.Context, worker, addr string) (net.Conn, error) {
	d := tls.Dialer{Config: m.store.ClientTLS(identity.Node(identity.Worker, worker))}
	return d.DialContext(ctx, "tcp", addr)
}

// errKeyFile refuses a second gossip key.
var errKeyFile = errors.New("--gossip-key-file: a closed cluster hands its gossip key to who joins: leave it out")
