// Package audit lets the nodes compare their states: now and then the leader
// writes a mark into the log, asks every voter for the hash of its state after
// that entry, and writes into the log what a majority of them found. Who found
// something else ends itself (coordinator/replica), be it the leader.
//
// The package refuses to judge by less than a majority of all voters, those that
// cannot be asked among them, and to count nodes of other versions, whose states
// may differ by right.
package audit

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/state"
)

// Found is what a voter answers. Index is that of the newest mark it has hashed.
type Found struct {
	Index   uint64
	Hash    string // hex
	Version string // of the program
}

// Log is the way to write.
type Log interface {
	Propose(ctx context.Context, c *logv1.Command) (state.Result, error)
}

// Config of an Auditor.
type Config struct {
	Log     Log
	Index   func() uint64 // of the last command applied here
	Voters  func() []string
	Ask     func(ctx context.Context, voter string) (Found, error) // this node, too
	Version string
	Format  string        // replica.HashFormat
	Every   time.Duration // between two marks, at least; 0 = never
	Entries uint64        // that must lie between them; with fewer it waits ten times as long
	Logger  *slog.Logger
}

// Auditor is the duty.
type Auditor struct {
	cfg  Config
	stop context.CancelFunc
	done sync.WaitGroup
}

// New prepares the duty.
func New(c Config) *Auditor { return &Auditor{cfg: c} }

// Start begins it.
func (a *Auditor) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	if a.cfg.Every <= 0 {
		return
	}
	a.done.Add(1)
	go func() { defer a.done.Done(); a.run(ctx) }()
}

// Stop ends it.
func (a *Auditor) Stop() {
	a.stop()
	a.done.Wait()
}

// run marks and compares until ctx ends.
func (a *Auditor) run(ctx context.Context) {
	tick := time.NewTicker(max(a.cfg.Every/10, time.Millisecond))
	defer tick.Stop()
	// The first mark comes early: a leader that differs should not lead for long.
	due, last := time.Now().Add(a.cfg.Every/5), uint64(0)
	late := due.Add(10 * a.cfg.Every)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, index := time.Now(), a.cfg.Index()
		if now.Before(due) || index <= last || last > 0 && index < last+a.cfg.Entries && now.Before(late) {
			continue
		}
		if err := a.round(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Logger.Info("the nodes' states were not compared", "error", err)
		}
		due, last = time.Now().Add(a.cfg.Every), a.cfg.Index()
		late = due.Add(10 * a.cfg.Every)
	}
}

// round marks, asks and writes the verdict.
func (a *Auditor) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	mark, err := a.cfg.Log.Propose(ctx, &logv1.Command{Op: &logv1.Command_MarkHash{MarkHash: &logv1.MarkHash{}}})
	if err != nil {
		return err
	}
	voters := a.cfg.Voters()
	found := a.collect(ctx, mark.Index, voters)
	hash, agreed := majority(found, len(voters))
	if hash == "" {
		if differ(found) {
			a.cfg.Logger.Error("nodes have different states, and no majority of the voters agrees: compare their data, and keep one",
				"index", mark.Index, "found", found)
		}
		return nil
	}
	sum, err := hex.DecodeString(hash)
	if err != nil {
		return err
	}
	_, err = a.cfg.Log.Propose(ctx, &logv1.Command{Op: &logv1.Command_CompareHash{CompareHash: &logv1.CompareHash{
		Index: mark.Index, Hash: sum, Format: a.cfg.Format, Agreed: agreed}}})
	if err == nil {
		a.cfg.Logger.Info("the nodes' states were compared", "index", mark.Index, "sha256", hash, "agreed", strings.Join(agreed, " "), "asked", len(voters), "answered", len(found))
	}
	return err
}

// collect asks every voter until it has hashed the mark; who does not answer in
// time is left out.
func (a *Auditor) collect(ctx context.Context, mark uint64, voters []string) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	found := map[string]string{}
	var wg sync.WaitGroup
	for _, id := range voters {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
				f, err := a.cfg.Ask(ctx, id)
				if err == nil && (f.Version != a.cfg.Version || f.Index > mark) {
					return
				}
				if err == nil && f.Index == mark {
					mu.Lock()
					found[id] = f.Hash
					mu.Unlock()
					return
				}
				select {
				case <-ctx.Done():
					return
				case <-time.After(pause):
				}
			}
		}()
	}
	wg.Wait()
	return found
}

// majority returns what more than half of all voters found and who they are, ""
// when there is no such hash.
func majority(found map[string]string, voters int) (hash string, agreed []string) {
	by := map[string][]string{}
	for id, h := range found {
		by[h] = append(by[h], id)
	}
	for h, ids := range by {
		if 2*len(ids) > voters {
			sort.Strings(ids)
			return h, ids
		}
	}
	return "", nil
}

// differ reports whether two nodes have found different hashes.
func differ(found map[string]string) bool {
	first := ""
	for _, h := range found {
		if first != "" && h != first {
			return true
		}
		first = h
	}
	return false
}
