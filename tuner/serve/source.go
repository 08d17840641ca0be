package serve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"atelier/tuner/models"
)

// Entry is a checkpoint that may be asked.
type Entry struct {
	ID     string `json:"id"`     // what a request gives
	Name   string `json:"name"`   // what people read
	Source string `json:"source"` // file | leaderboard
	Time   string `json:"time,omitempty"`
	Note   string `json:"note,omitempty"` // value, trial

	Group        string   `json:"group,omitempty"`       // the training, tuning or sweep that it is of
	Accuracy     *float64 `json:"accuracy,omitempty"`    // in 0..1
	Measured     string   `json:"measured_on,omitempty"` // test | validation images
	Architecture string   `json:"architecture,omitempty"`
	ImageSize    int      `json:"image_size,omitempty"`
	Classes      []string `json:"classes,omitempty"`
	Fault        string   `json:"fault,omitempty"` // why it cannot be asked
}

// Source finds checkpoints.
type Source interface {
	// List returns the entries, the best first, those of a group side by side.
	List(ctx context.Context) ([]Entry, error)
	// Path returns a file on this machine for an entry's id, fetching it if need be; ErrUnknown where
	// the source has none of that id.
	Path(ctx context.Context, id string) (string, error)
}

// ErrUnknown is a source's answer to an id of another's.
var ErrUnknown = errors.New("no checkpoint of that name")

// Files are checkpoints on this machine.
type Files struct{ *models.Finder }

// maxListed bounds the list of a page.
const maxListed = 200

// List looks anew each time: a training that ends shows up.
func (f Files) List(context.Context) ([]Entry, error) {
	found, err := f.Ranked()
	entries := make([]Entry, 0, len(found))
	for _, m := range found[:min(len(found), maxListed)] {
		x := Entry{ID: m.ID, Name: m.ID, Source: "file", Time: m.Written.UTC().Format(time.RFC3339), Group: m.Group,
			Measured: m.Measured, Architecture: m.Architecture, ImageSize: m.ImageSize, Classes: m.Classes, Fault: m.Fault}
		if !math.IsNaN(m.Accuracy) {
			x.Accuracy = &m.Accuracy
		}
		if m.Trial > 0 {
			x.Note = fmt.Sprintf("trial %d", m.Trial)
		}
		entries = append(entries, x)
	}
	return entries, err
}

// Path answers for files that were found alone: a request gets no other file.
func (f Files) Path(_ context.Context, id string) (string, error) {
	all, _ := f.All() // what is missing is not this one
	for _, m := range all {
		if m.ID == id {
			return m.Path, nil
		}
	}
	return "", ErrUnknown
}

// ranked puts the groups of several sources in one order: by the best accuracy in
// each, those without one last and as they came.
func ranked(entries []Entry) []Entry {
	type group struct {
		entries []Entry
		best    float64
	}
	var groups []*group
	at := map[string]*group{}
	for _, e := range entries {
		g := at[e.Source+"\x00"+e.Group]
		if g == nil || e.Group == "" {
			g = &group{best: -1}
			groups = append(groups, g)
			at[e.Source+"\x00"+e.Group] = g
		}
		g.entries = append(g.entries, e)
		if e.Accuracy != nil && e.Fault == "" {
			g.best = max(g.best, *e.Accuracy)
		}
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(b.best, a.best) })
	out := make([]Entry, 0, len(entries))
	for _, g := range groups {
		out = append(out, g.entries...)
	}
	return out
}

// list asks all sources; an error of one of them is a problem beside the rest.
func (s *Server) list(ctx context.Context) (entries []Entry, problems []string) {
	for _, source := range s.sources {
		found, err := source.List(ctx)
		if err != nil {
			problems = append(problems, err.Error())
		}
		entries = append(entries, found...)
	}
	return ranked(entries), problems
}

// find turns an entry's id into a file on this machine; without one the best
// entry is taken.
func (s *Server) find(ctx context.Context, id string) (string, error) {
	if id == "" {
		entries, problems := s.list(ctx)
		if len(entries) == 0 {
			return "", errors.New(strings.Join(append([]string{"there is no checkpoint to ask: train a model, or give one with --checkpoint"}, problems...), "; "))
		}
		id = entries[0].ID
	}
	for _, source := range s.sources {
		file, err := source.Path(ctx, id)
		if !errors.Is(err, ErrUnknown) {
			return file, err
		}
	}
	return "", fmt.Errorf("there is no checkpoint %q; GET /api/checkpoints lists those there are", id)
}
