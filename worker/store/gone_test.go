package store_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"atelier/common/trial"
	"atelier/worker/store"
)

func openAs(t *testing.T, worker, shared string) *store.Store {
	t.Helper()
	root := shared
	if root == "" {
		root = filepath.Join(t.TempDir(), "checkpoints")
	}
	srv := httptest.NewUnstartedServer(nil)
	s, err := store.Open(store.Config{Worker: worker, Root: root, Shared: shared != "", Cache: filepath.Join(t.TempDir(), "fetched")}, srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = s.Handler(4)
	srv.Start()
	t.Cleanup(func() { srv.Close(); s.Close() })
	return s
}

// A file is gone when the worker that is to have it says so. A 404 of somebody
// else at its address, a worker that is away and a file of other bytes are not.
func TestGoneIsForItsOwnerToSay(t *testing.T) {
	owner, other := openAs(t, "w1", ""), openAs(t, "w2", "")
	c, file := put(t, owner, 7, "epoch-2.pth", "weights")
	c.Worker = "w1"
	fetch := func(s *store.Store, c trial.Checkpoint) error { _, err := s.Fetch(t.Context(), c); return err }
	if err := fetch(other, c); err != nil || owner.Gone(c) {
		t.Fatalf("while it is there: %v", err)
	}
	os.WriteFile(file, []byte("WEIGHTS"), 0o644)
	third := openAs(t, "w3", "")
	for _, s := range []*store.Store{owner, third} {
		if err := fetch(s, c); err == nil || errors.Is(err, store.ErrGone) {
			t.Errorf("of other bytes: %v", err)
		}
	}
	os.Remove(file)
	for name, s := range map[string]*store.Store{"its owner": owner, "another": third} {
		if err := fetch(s, c); !errors.Is(err, store.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !owner.Gone(c) || third.Gone(c) {
		t.Errorf("gone says the owner %v, another %v", owner.Gone(c), third.Gone(c))
	}
	elsewhere := c
	elsewhere.Worker = "w9"
	if err := fetch(third, elsewhere); err == nil || errors.Is(err, store.ErrGone) {
		t.Errorf("a worker that has taken over the address: %v", err)
	}
}

// In a shared folder a file is gone only where its trial's folder is there: a
// folder that is not mounted looks empty.
func TestGoneFromASharedFolder(t *testing.T) {
	shared := t.TempDir()
	s := openAs(t, "w1", shared)
	c, file := put(t, s, 7, "epoch-2.pth", "weights")
	os.Remove(file)
	if _, err := s.Fetch(t.Context(), c); !errors.Is(err, store.ErrGone) {
		t.Errorf("%v", err)
	}
	os.RemoveAll(filepath.Join(shared, "s-abc"))
	if _, err := s.Fetch(t.Context(), c); err == nil || errors.Is(err, store.ErrGone) {
		t.Errorf("with nothing of the trial there: %v", err)
	}
}
