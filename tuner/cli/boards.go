package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/tuner/models"
	"atelier/tuner/serve"
)

// boards finds the best checkpoints of a cluster's leaderboards.
type boards struct {
	api    *client.Client
	stored client.Files
	now    func() time.Time

	mu       sync.Mutex
	files    map[string]string    // id -> fetched file
	trained  map[string]trainedAs // sweep -> what its trials are
	accuracy map[string]*float64  // id@epoch -> on validation images; nil = not reported
	listed   []serve.Entry        // the last list, for a moment
	failed   error                // of the last list
	until    time.Time            // that it counts
}

const (
	boardSweeps = 10 // newest ones
	boardTop    = 5
	boardFresh  = 5 * time.Second // a list is asked of the cluster no more often
)

// trainedAs are the training settings that a list shows.
type trainedAs struct {
	Model     string `json:"model"`
	ImageSize int    `json:"image_size"`
}

// List returns the best trials of the newest sweeps that have checkpoints, those
// with the best accuracy first.
func (b *boards) List(ctx context.Context) ([]serve.Entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.now().After(b.until) {
		b.listed, b.failed = b.ask(ctx)
		b.until = b.now().Add(boardFresh)
	}
	return b.listed, b.failed
}

func (b *boards) ask(ctx context.Context) ([]serve.Entry, error) {
	sweeps, err := b.api.Sweeps(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("leaderboards: %s", client.Message(err))
	}
	entries, err := b.aliases(ctx)
	if err != nil {
		return nil, fmt.Errorf("aliases: %s", client.Message(err))
	}
	looked := 0
	for _, s := range sweeps { // newest first
		if looked == boardSweeps {
			break
		}
		if s.Kind == trial.Inference {
			continue // its checkpoints are results
		}
		looked++
		of, err := b.board(ctx, s)
		entries = append(entries, of...)
		if err != nil {
			return entries, fmt.Errorf("leaderboard of %s: %s", s.ID, client.Message(err))
		}
	}
	return entries, nil
}

// aliases are the checkpoints that people named, which come first.
func (b *boards) aliases(ctx context.Context) (entries []serve.Entry, err error) {
	all, err := b.api.Aliases(ctx)
	if client.CodeOf(err) == client.CodeUnimplemented {
		return nil, nil // a cluster from before there were aliases
	}
	for _, a := range all {
		p := a.Places[0]
		x := serve.Entry{ID: aliasPrefix + a.Name, Name: a.Name, Source: "alias", Group: "aliases", Time: time.UnixMilli(p.SinceMS).UTC().Format(time.RFC3339), Note: placeText(p)}
		if as, err := b.settings(ctx, p.Sweep); err == nil {
			x.Architecture, x.ImageSize = as.Model, as.ImageSize
		}
		if a.Location == "" {
			x.Fault = "its file is gone"
		}
		entries = append(entries, x)
	}
	return entries, err
}

// board returns the best trials of one sweep.
func (b *boards) board(ctx context.Context, s trial.Sweep) (entries []serve.Entry, err error) {
	board, err := b.api.Leaderboard(ctx, s.ID, boardTop, false, client.From{})
	if err != nil {
		return nil, err
	}
	name := cmp.Or(s.Name, s.ID)
	for _, row := range board.Rows {
		if row.Checkpoint == "" {
			continue
		}
		as, err := b.settings(ctx, s.ID)
		if err != nil {
			return entries, err
		}
		json.Unmarshal(row.Params, &as) // parameters that are searched; what cannot be read changes nothing
		x := serve.Entry{ID: fmt.Sprintf("%s/%d", s.ID, row.Trial), Name: fmt.Sprintf("%s, trial %d", name, row.Trial), Source: "leaderboard",
			Group: fmt.Sprintf("sweep %s (%s)", name, s.ID), Architecture: as.Model, ImageSize: as.ImageSize, Time: when(s),
			Note: fmt.Sprintf("%s %.4g, epoch %d", s.Objective.Metric, float64(row.Value), row.Epoch)}
		if x.Accuracy, err = b.validated(ctx, s, row); err != nil {
			return entries, err
		}
		if x.Accuracy != nil {
			x.Measured = models.Validation
		}
		entries = append(entries, x)
	}
	known := func(e serve.Entry) float64 {
		if e.Accuracy == nil {
			return -1
		}
		return *e.Accuracy
	}
	slices.SortStableFunc(entries, func(a, b serve.Entry) int { return cmp.Compare(known(b), known(a)) })
	return entries, nil
}

// when is the time of a sweep's end, or of its start while it runs.
func when(s trial.Sweep) string {
	return time.UnixMilli(cmp.Or(s.EndedMS, s.CreatedMS)).UTC().Format(time.RFC3339)
}

// settings are those of a sweep's training, which never change.
func (b *boards) settings(ctx context.Context, sweep string) (as trainedAs, err error) {
	if as, ok := b.trained[sweep]; ok {
		return as, nil
	}
	s, err := b.api.Sweep(ctx, sweep)
	if err != nil {
		return as, err
	}
	var document struct {
		Training trainedAs `json:"training"`
	}
	json.Unmarshal([]byte(s.SpecJSON), &document) // of a trainer whose settings are others, nothing
	b.trained[sweep] = document.Training
	return document.Training, nil
}

// validated is the accuracy on validation images at the epoch of a trial's best
// value; nil where it was not reported.
func (b *boards) validated(ctx context.Context, s trial.Sweep, row trial.Row) (*float64, error) {
	key := fmt.Sprintf("%s/%d@%d", s.ID, row.Trial, row.Epoch)
	if v, ok := b.accuracy[key]; ok {
		return v, nil
	}
	curve, err := b.api.Curve(ctx, s.ID, row.Trial)
	if err != nil {
		return nil, err
	}
	b.accuracy[key] = nil
	for _, r := range curve {
		if v, ok := r.Metrics.Get("val_acc"); ok && r.Epoch == row.Epoch {
			b.accuracy[key] = &v
		}
	}
	return b.accuracy[key], nil
}

// newBoards asks a cluster.
func newBoards(api *client.Client, stored client.Files, now func() time.Time) *boards {
	return &boards{api: api, stored: stored, now: now, files: map[string]string{}, trained: map[string]trainedAs{}, accuracy: map[string]*float64{}}
}

// stands is the checkpoint that an entry's id names now.
func (b *boards) stands(ctx context.Context, id string) (*trial.Checkpoint, error) {
	if name, is := strings.CutPrefix(id, aliasPrefix); is {
		return aliased(ctx, b.api, name)
	}
	sweep, number, _ := strings.Cut(id, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil, serve.ErrUnknown
	}
	_, best, err := findCheckpoint(ctx, b.api, sweep, n, 0, false)
	return best, err
}

// Path fetches a trial's best checkpoint into the user's cache, once.
func (b *boards) Path(ctx context.Context, id string) (string, error) {
	entries, listed := b.List(ctx)
	if !slices.ContainsFunc(entries, func(e serve.Entry) bool { return e.ID == id }) {
		return "", cmp.Or(listed, serve.ErrUnknown)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	best, err := b.stands(ctx, id)
	if err != nil {
		return "", errors.New(client.Message(err))
	}
	// With its hash: a trial that has a better checkpoint by now is fetched anew.
	key := id + "@" + best.SHA256
	if path := b.files[key]; path != "" {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "atelier", "served", best.SHA256+".pth")
	if _, err := os.Stat(path); err != nil {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := b.stored.Pull(ctx, best, path); err != nil {
			return "", fmt.Errorf("fetch the checkpoint of trial %s: %w", id, err)
		}
	}
	b.files[key] = path
	return path, nil
}
