package harness

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// Journal is a file of measurements, one JSON line each, written as they come:
// a session that was killed loses the one in progress and the next goes on.
type Journal struct {
	programs string

	mu    sync.Mutex // of what follows, while measurements are taken
	lines []line
	file  *os.File // nil: in memory alone
}

// OpenJournal reads what is there. A last line that was cut off is left out; a
// broken line elsewhere is an error. Path "" keeps measurements in memory.
func OpenJournal(path, programs string) (*Journal, error) {
	j := &Journal{programs: programs}
	if path == "" {
		return j, nil
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := bytes.LastIndexByte(data, '\n') + 1
	for text := range bytes.Lines(data[:whole]) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil || l.Key == "" {
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
	_, err = j.file.Seek(int64(whole), io.SeekStart)
	return j, err
}

// Last reads the newest measurement of key by these programs.
func (j *Journal) Last(key string, result any) bool {
	return j.read(result, func(l line) bool { return l.Key == key && l.Programs == j.programs })
}

// Newest reads the newest measurement of key by whichever programs.
func (j *Journal) Newest(key string, result any) bool {
	return j.read(result, func(l line) bool { return l.Key == key })
}

func (j *Journal) read(result any, is func(line) bool) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, l := range slices.Backward(j.lines) {
		if is(l) {
			return json.Unmarshal(l.Result, result) == nil
		}
	}
	return false
}

// Keys are those that begin with a part's name, each once, in the order in
// which they were first measured.
func (j *Journal) Keys(part string) (keys []string) {
	for _, l := range j.lines {
		if strings.HasPrefix(l.Key, part+" ") && !slices.Contains(keys, l.Key) {
			keys = append(keys, l.Key)
		}
	}
	return keys
}

// Conditions says under what the newest measurements of a part were taken.
func (j *Journal) Conditions(part string) string {
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
	text := fmt.Sprintf("Load average before each measurement: %.1f to %.1f, median %.1f.", values[0], values[len(values)-1], Median(values))
	if n := len(slices.Compact(slices.Sorted(maps.Values(builds)))); n > 1 {
		text += fmt.Sprintf(" Figures of %d builds.", n)
	}
	return text + "\n\n"
}

// Add writes a measurement.
func (j *Journal) Add(key string, at time.Time, load float64, result any) error {
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
	if j.file != nil {
		if _, err := j.file.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	j.lines = append(j.lines, l)
	return nil
}

// Close closes the file.
func (j *Journal) Close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}

// digest changes with any of the programs and scripts.
func digest(programs []string, scripts fs.FS) (string, error) {
	h := sha256.New()
	for _, name := range programs {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("%w; make build makes the programs, -h lists the flags that say where they are", err)
		}
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	if scripts != nil {
		err := fs.WalkDir(scripts, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := fs.ReadFile(scripts, path)
			h.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}
