package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

type fakeLog struct{ written []*logv1.Command }

func (l *fakeLog) Propose(_ context.Context, c *logv1.Command) (state.Result, error) {
	l.written = append(l.written, c)
	return state.Result{Index: 10 + uint64(len(l.written))}, nil
}

// TestRound: what a majority of all voters found is written, and nothing without one.
func TestRound(t *testing.T) {
	a, b := hex.EncodeToString([]byte("aaaa")), hex.EncodeToString([]byte("bbbb"))
	for name, c := range map[string]struct {
		found  map[string]string // "" = does not answer
		agreed []string
		hash   string
	}{
		"all alike":                      {map[string]string{"n1": a, "n2": a, "n3": a}, []string{"n1", "n2", "n3"}, a},
		"a follower differs":             {map[string]string{"n1": a, "n2": a, "n3": b}, []string{"n1", "n2"}, a},
		"the leader differs":             {map[string]string{"n1": b, "n2": a, "n3": a}, []string{"n2", "n3"}, a},
		"one does not answer":            {map[string]string{"n1": a, "n2": "", "n3": a}, []string{"n1", "n3"}, a},
		"one differs, one is gone":       {map[string]string{"n1": a, "n2": "", "n3": b}, nil, ""},
		"two of two differ":              {map[string]string{"n1": a, "n2": b}, nil, ""},
		"two of five agree, two differ":  {map[string]string{"n1": a, "n2": a, "n3": b, "n4": b, "n5": ""}, nil, ""},
		"one alone":                      {map[string]string{"n1": a}, []string{"n1"}, a},
		"another version is not counted": {map[string]string{"n1": a, "n2": "other version", "n3": b}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			log := &fakeLog{}
			au := New(Config{Log: log, Version: "v1", Format: "v1/1", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
				Voters: func() []string {
					var ids []string
					for id := range c.found {
						ids = append(ids, id)
					}
					return ids
				},
				Ask: func(_ context.Context, id string) (Found, error) {
					if c.found[id] == "other version" {
						return Found{Index: 11, Hash: a, Version: "v0"}, nil
					}
					return Found{Index: 11, Hash: c.found[id], Version: "v1"}, map[bool]error{true: errors.New("gone")}[c.found[id] == ""]
				},
			})
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			for _, h := range c.found {
				if h == "" { // nobody waits for those that are gone
					ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
					defer cancel()
				}
			}
			if err := au.round(ctx); err != nil {
				t.Fatal(err)
			}
			if log.written[0].GetMarkHash() == nil {
				t.Fatalf("no mark: %v", log.written)
			}
			if c.hash == "" {
				if len(log.written) != 1 {
					t.Fatalf("a verdict without a majority: %v", log.written[1])
				}
				return
			}
			if len(log.written) != 2 {
				t.Fatal("no verdict")
			}
			v := log.written[1].GetCompareHash()
			if v.GetIndex() != 11 || hex.EncodeToString(v.GetHash()) != c.hash || !slices.Equal(v.GetAgreed(), c.agreed) || v.GetFormat() != "v1/1" {
				t.Errorf("verdict %v", v)
			}
		})
	}
}
