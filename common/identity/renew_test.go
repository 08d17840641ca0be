package identity_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/identity"
)

// A renewal that fails, or brings another node's certificate, is tried again until one is installed; then there is
// nothing to do for weeks.
func TestKeepFreshReplacesInTime(t *testing.T) {
	a := authority(t, "c-one")
	s, err := identity.Create(filepath.Join(t.TempDir(), "tls"), credentials(t, a, identity.Worker, "w1", time.Now().Add(-20*time.Hour), 20*time.Hour+15*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	first := s.Certificate()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var log bytes.Buffer
	asked := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.KeepFresh(ctx, slog.New(slog.NewTextHandler(&log, nil)), func(context.Context) (identity.Credentials, error) {
			asked++
			switch asked {
			case 1:
				return identity.Credentials{}, errors.New("no leader")
			case 2:
				return credentials(t, a, identity.Worker, "w2", time.Now(), identity.NodeLife), nil
			}
			return credentials(t, a, identity.Worker, "w1", time.Now(), identity.NodeLife), nil
		})
	}()
	for end := time.Now().Add(30 * time.Second); s.Certificate().Equal(first) && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // enough to ask again, were it wrong about when
	cancel()
	<-done
	if s.Certificate().Equal(first) || asked != 3 {
		t.Errorf("asked %d times, the certificate counts until %s", asked, s.Certificate().NotAfter)
	}
	for _, want := range []string{"no leader", "worker w2 of cluster c-one", "was renewed"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, &log)
		}
	}
}

func TestRenewSelf(t *testing.T) {
	s, err := identity.Begin(t.TempDir(), identity.Name{Cluster: "c-one", Role: identity.Coordinator, Node: "c1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	was := s.Certificate()
	c, err := s.RenewSelf(context.Background())
	if err == nil {
		err = s.Install(c)
	}
	if err != nil || s.Certificate().Equal(was) || s.Name().Node != "c1" || s.Authority() == nil {
		t.Errorf("%v, %s", err, s.Name())
	}
}

func TestInvitation(t *testing.T) {
	i := identity.Invitation{Addresses: []string{"10.0.0.1:7600", "[::1]:7600"}, Fingerprint: strings.Repeat("0a", 32), Secret: "atl_i-abc_xyz"}
	got, err := identity.ParseInvitation(i.Text())
	if err != nil || got.Secret != i.Secret || got.Fingerprint != i.Fingerprint || strings.Join(got.Addresses, " ") != strings.Join(i.Addresses, " ") {
		t.Errorf("%+v, %v", got, err)
	}
	if !identity.IsInvitation(i.Text()) || identity.IsInvitation("10.0.0.1:7602") {
		t.Error("invitations and addresses are taken for each other")
	}
	if strings.Contains(i.String()+slog.AnyValue(i).String(), "xyz") {
		t.Error("an invitation prints its secret")
	}
	for _, bad := range []identity.Invitation{
		{Addresses: nil, Fingerprint: i.Fingerprint, Secret: "s"},
		{Addresses: []string{"host/x:1"}, Fingerprint: i.Fingerprint, Secret: "s"},
		{Addresses: i.Addresses, Fingerprint: "0a", Secret: "s"},
		{Addresses: i.Addresses, Fingerprint: i.Fingerprint},
	} {
		if got, err := identity.ParseInvitation(bad.Text()); err == nil {
			t.Errorf("%+v was read as %+v", bad, got)
		}
	}
	if _, err := identity.ParseInvitation(i.Text()[:60]); err == nil || strings.Contains(err.Error(), i.Text()[20:60]) {
		t.Errorf("half an invitation: %v", err)
	}
}

func FuzzParseInvitation(f *testing.F) {
	f.Add(identity.Invitation{Addresses: []string{"h:1"}, Fingerprint: strings.Repeat("0a", 32), Secret: "s"}.Text())
	f.Add("atelier-join.e30")
	f.Fuzz(func(t *testing.T, text string) {
		i, err := identity.ParseInvitation(text)
		if err != nil {
			return
		}
		again, err := identity.ParseInvitation(i.Text())
		if err != nil || again.Secret != i.Secret || len(i.Addresses) == 0 || len(i.Fingerprint) != 64 {
			t.Errorf("%q: %+v, then %v", text, i, err)
		}
	})
}
