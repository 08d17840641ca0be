package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// trace is one method on one variant of one problem: what was measured.
type trace struct {
	Method  string    `json:"method"`
	Open    int       `json:"open"`
	Trials  int       `json:"trials"`
	Seed    uint64    `json:"seed"`
	Problem string    `json:"problem"`
	Millis  float64   `json:"ms"`   // wall time of the whole run
	Best    []float64 `json:"best"` // after each trial
}

// key is what tells one run from another.
type key struct {
	method  string
	open    int
	trials  int
	seed    uint64
	problem string
}

// journal holds the runs measured so far, in a file where it has one, so that a
// measurement of hours goes on after an interrupt. It knows nothing of the code
// that was measured: after a change to a method it is to be deleted.
type journal struct {
	file *os.File
	runs map[key]trace // looked up only
}

// openJournal reads what a file holds, which may end in half a line; path ""
// keeps runs in memory alone.
func openJournal(path string) (*journal, error) {
	j := &journal{runs: map[key]trace{}}
	if path == "" {
		return j, nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := 0
	for n := 1; whole < len(text); n++ {
		end := bytes.IndexByte(text[whole:], '\n')
		if end < 0 {
			break // cut off while it was written: measured again
		}
		var r trace
		if err := json.Unmarshal(text[whole:whole+end], &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w; delete the file or the line", path, n, err)
		}
		if len(r.Best) != r.Trials {
			return nil, fmt.Errorf("%s, line %d: %d values of %d trials; delete the file or the line", path, n, len(r.Best), r.Trials)
		}
		j.runs[r.key()] = r
		whole += end + 1
	}
	if j.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if err := j.file.Truncate(int64(whole)); err != nil {
		return nil, err
	}
	_, err = j.file.Seek(int64(whole), 0)
	return j, err
}

func (r *trace) key() key { return key{r.Method, r.Open, r.Trials, r.Seed, r.Problem} }

func (j *journal) add(r trace) error {
	j.runs[r.key()] = r
	if j.file == nil {
		return nil
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = j.file.Write(append(line, '\n'))
	return err
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
