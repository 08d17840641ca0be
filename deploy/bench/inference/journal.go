package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
)

// setup is what makes two rounds comparable.
type setup struct {
	Part      string `json:"part"` // production or serve
	Size      int    `json:"size"`
	Threads   int    `json:"threads"`
	Precision string `json:"precision"`          // of our side
	Images    int    `json:"images,omitempty"`   // of production
	Clients   int    `json:"clients,omitempty"`  // of serve
	Requests  int    `json:"requests,omitempty"` // of serve
}

// round is one turn of both sides.
type round struct {
	setup
	Number int `json:"round"` // from 1

	Ours     float64 `json:"ours,omitempty"` // production: seconds, start to end
	Theirs   float64 `json:"theirs,omitempty"`
	Bare     float64 `json:"theirs_bare,omitempty"` // the peer's after its imports
	Pictures int     `json:"pictures,omitempty"`

	OursWork   float64 `json:"ours_processor_s,omitempty"` // production: seconds of all cores together
	TheirsWork float64 `json:"theirs_processor_s,omitempty"`

	Sides []side `json:"sides,omitempty"` // serve: in batches, then one by one
}

// side is a server's part of a round.
type side struct {
	Rate float64   `json:"rate"` // requests a second
	Took []float64 `json:"took"` // seconds, one a request, sorted
}

// journal holds the rounds measured so far, in a file where it has one, so that
// an interrupted measurement goes on. It knows nothing of the programs that were
// measured: after a change to them it is to be deleted.
type journal struct {
	file   *os.File
	rounds []round
}

// openJournal reads what a file holds, which may end in half a line; path ""
// keeps rounds in memory alone.
func openJournal(path string) (*journal, error) {
	j := &journal{}
	if path == "" {
		return j, nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := 0
	for n := 1; ; n++ {
		end := bytes.IndexByte(text[whole:], '\n')
		if end < 0 {
			break // cut off while it was written: measured again
		}
		var r round
		if err := json.Unmarshal(text[whole:whole+end], &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; delete the file or the line", path, n, err)
		}
		j.rounds = append(j.rounds, r)
		whole += end + 1
	}
	if j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	if err := errors.Join(j.file.Truncate(int64(whole)), seek(j.file, int64(whole))); err != nil {
		return nil, err
	}
	return j, nil
}

func seek(f *os.File, to int64) error {
	_, err := f.Seek(to, 0)
	return err
}

// of returns the rounds of a setup, by number, at most n.
func (j *journal) of(s setup, n int) (out []round) {
	for _, r := range j.rounds {
		if r.setup == s && r.Number <= n {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b round) int { return a.Number - b.Number })
	return out
}

// add keeps a round.
func (j *journal) add(r round) error {
	j.rounds = append(j.rounds, r)
	if j.file == nil {
		return nil
	}
	b, err := json.Marshal(r)
	if err == nil {
		_, err = j.file.Write(append(b, '\n'))
	}
	return err
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
