package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// line is one measurement in the journal.
type line struct {
	Key      string          `json:"key"`      // what was measured: part and settings
	Programs string          `json:"programs"` // digest of the programs measured
	At       time.Time       `json:"at"`
	Load     float64         `json:"load"` // the machine's load average (1 min) when it began
	Result   json.RawMessage `json:"result"`
}

// journal is a file of measurements, one JSON line each, written as they come:
// a session that was killed loses the one in progress and the next goes on.
type journal struct {
	path     string
	programs string

	mu    sync.Mutex // of what follows, while measurements are taken
	lines []line
	file  *os.File
}

// openJournal reads what is there. A last line that was cut off is left out; a
// broken line elsewhere is an error.
func openJournal(path, programs string) (*journal, error) {
	j := &journal{path: path, programs: programs}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	for s := bufio.NewScanner(bytes.NewReader(data[:whole])); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil || l.Key == "" {
			return nil, fmt.Errorf("%s, line %d: not a measurement (%v); move the file away or mend the line", path, len(j.lines)+1, err)
		}
		j.lines = append(j.lines, l)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if j.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644); err != nil {
		return nil, err
	}
	if err := j.file.Truncate(int64(whole)); err != nil {
		return nil, err
	}
	_, err = j.file.Seek(int64(whole), 0)
	return j, err
}

// last is the newest measurement of key by these programs.
func (j *journal) last(key string, result any) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.lines) - 1; i >= 0; i-- {
		if l := j.lines[i]; l.Key == key && l.Programs == j.programs {
			return json.Unmarshal(l.Result, result) == nil
		}
	}
	return false
}

// newest is the newest measurement of key by whichever programs.
func (j *journal) newest(key string, result any) bool {
	for i := len(j.lines) - 1; i >= 0; i-- {
		if l := j.lines[i]; l.Key == key {
			return json.Unmarshal(l.Result, result) == nil
		}
	}
	return false
}

// keys are those that begin with a part's name, each once, in the order in
// which they were first measured.
func (j *journal) keys(part string) (keys []string) {
	for _, l := range j.lines {
		if strings.HasPrefix(l.Key, part+" ") && !slices.Contains(keys, l.Key) {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

// conditions says under what the newest measurements of a part were taken.
func (j *journal) conditions(part string) string {
	loads, builds := map[string]float64{}, map[string]string{}
	for _, l := range j.lines {
		if strings.HasPrefix(l.Key, part+" ") {
			loads[l.Key], builds[l.Key] = l.Load, l.Programs
		}
	}
	values := slices.Sorted(maps.Values(loads))
	if len(values) == 0 {
		return ""
	}
	text := fmt.Sprintf("Load average before each measurement: %.1f to %.1f, median %.1f.", values[0], values[len(values)-1], median(values))
	if n := len(slices.Compact(slices.Sorted(maps.Values(builds)))); n > 1 {
		text += fmt.Sprintf(" Figures of %d builds.", n)
	}
	return text + "\n\n"
}

// add writes a measurement.
func (j *journal) add(key string, at time.Time, load float64, result any) error {
	raw, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	l := line{Key: key, Programs: j.programs, At: at.UTC(), Load: load, Result: raw}
	b, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.file.Write(append(b, '\n')); err != nil {
		return err
	}
	j.lines = append(j.lines, l)
	return nil
}

func (j *journal) close() error { return j.file.Close() }
