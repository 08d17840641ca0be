package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"atelier/common/filename"
)

// Moved is a line of the quarantine's manifest.
type Moved struct {
	Finding
	To   string `json:"to"`             // relative to the quarantine
	From string `json:"from,omitempty"` // the folder that Path is relative to; absolute
	Time string `json:"time"`
	Back bool   `json:"back,omitempty"` // it was moved back then
}

// Manifest is the file in a quarantine that says what came from where and why.
const Manifest = "quarantine.jsonl"

// Move puts what should go into the quarantine and writes each move down
// before it is made. What cannot be moved stays and is told.
func (r *Report) Move(ctx context.Context, quarantine string, now time.Time) (moved int, err error) {
	if len(r.Go) == 0 {
		return 0, nil
	}
	if rel, err := filepath.Rel(r.Dir, quarantine); err == nil && filepath.IsLocal(rel) && rel != "." && !strings.HasPrefix(rel, ".") {
		return 0, fmt.Errorf("quarantine %s lies inside %s, where its files would be images again; give a folder beside it", quarantine, r.Dir)
	}
	from, err := filepath.Abs(r.Dir)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(quarantine, 0o755); err != nil {
		return 0, err
	}
	record, err := openRecord(quarantine)
	if err != nil {
		return 0, err
	}
	defer record.Close()
	var failed error
	for _, f := range r.Go {
		if err := ctx.Err(); err != nil {
			return moved, err
		}
		to := free(quarantine, f.Path)
		if err := record.add(Moved{Finding: f, To: to, From: from, Time: now.UTC().Format(time.RFC3339)}); err != nil {
			return moved, err
		}
		if err := move(filepath.Join(r.Dir, filepath.FromSlash(f.Path)), filepath.Join(quarantine, filepath.FromSlash(to))); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		moved++
	}
	return moved, failed
}

// Undone says what Undo did.
type Undone struct {
	Back    []string // moved back, relative to the folder
	Taken   []string // stay in the quarantine: something else has their place
	Unknown []string // asked for and not in the quarantine's record
}

// Undo brings back to dir what cleanups moved from there into a quarantine and
// is there still: all of it, or what only names (files, or folders of them, as
// the report named them). It overwrites nothing.
func Undo(ctx context.Context, dir, quarantine string, only []string, now time.Time) (*Undone, error) {
	b, err := os.ReadFile(filepath.Join(quarantine, Manifest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("undo: there is no %s in %s: nothing was moved there; give another quarantine with --quarantine", Manifest, quarantine)
	}
	if err != nil {
		return nil, err
	}
	lines, err := parseRecord(b)
	if err != nil {
		return nil, fmt.Errorf("undo: %s: %w", filepath.Join(quarantine, Manifest), err)
	}
	home, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	record, err := openRecord(quarantine)
	if err != nil {
		return nil, err
	}
	defer record.Close()
	last := map[string]int{} // place of the last line about a file in the quarantine
	for i, m := range lines {
		last[m.To] = i
	}
	known := map[string]bool{}
	u := &Undone{}
	var failed error
	for i, m := range lines {
		if m.Back || m.From != "" && m.From != home || last[m.To] != i {
			continue
		}
		wanted := len(only) == 0
		for _, name := range only {
			if name = path.Clean(filepath.ToSlash(name)); m.Path == name || strings.HasPrefix(m.Path, name+"/") {
				wanted, known[name] = true, true
			}
		}
		from, to := filepath.Join(quarantine, filepath.FromSlash(m.To)), filepath.Join(dir, filepath.FromSlash(m.Path))
		if _, err := os.Lstat(from); !wanted || errors.Is(err, fs.ErrNotExist) {
			continue // somebody took it, or it was written down and never moved
		}
		if err := ctx.Err(); err != nil {
			return u, err
		}
		if _, err := os.Lstat(to); err == nil {
			u.Taken = append(u.Taken, m.Path)
			continue
		}
		if err := move(from, to); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		m.Back, m.Time = true, now.UTC().Format(time.RFC3339)
		if err := record.add(m); err != nil {
			return u, err
		}
		u.Back = append(u.Back, m.Path)
	}
	for _, name := range only {
		if !known[path.Clean(filepath.ToSlash(name))] {
			u.Unknown = append(u.Unknown, name)
		}
	}
	return u, failed
}

// parseRecord reads a manifest. A line that a crash cut short says nothing: it is
// written before its file is moved.
func parseRecord(b []byte) (lines []Moved, err error) {
	for n, text := range strings.Split(string(b), "\n") {
		var m Moved
		if json.Unmarshal([]byte(text), &m) != nil {
			continue
		}
		m.Path, m.To, m.From = filename.Decode(m.Path), filename.Decode(m.To), filename.Decode(m.From)
		if !filepath.IsLocal(filepath.FromSlash(m.Path)) || !filepath.IsLocal(filepath.FromSlash(m.To)) {
			return nil, fmt.Errorf("line %d: %q moved to %q leads out of the folders", n+1, m.Path, m.To)
		}
		lines = append(lines, m)
	}
	return lines, nil
}

// record is a manifest that lines are added to.
type record struct{ *os.File }

func openRecord(quarantine string) (record, error) {
	f, err := os.OpenFile(filepath.Join(quarantine, Manifest), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return record{}, err
	}
	// A line that a crash cut short must not swallow the next one.
	if end, err := f.Seek(0, io.SeekEnd); err == nil && end > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, end-1); err == nil && last[0] != '\n' {
			f.Write([]byte("\n"))
		}
	}
	return record{f}, nil
}

func (r record) add(m Moved) error {
	m.Path, m.To, m.From = filename.Encode(m.Path), filename.Encode(m.To), filename.Encode(m.From)
	line, err := json.Marshal(m)
	if err == nil {
		_, err = r.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", r.Name(), err)
	}
	return nil
}

// free is a name in the quarantine that nothing has yet.
func free(quarantine, file string) string {
	ext := path.Ext(file)
	stem := strings.TrimSuffix(file, ext)
	for n := 1; ; n++ {
		to := file
		if n > 1 {
			to = fmt.Sprintf("%s~%d%s", stem, n, ext)
		}
		dir, name := path.Split(to)
		to = dir + filename.Cut(name, filename.Max)
		if _, err := os.Lstat(filepath.Join(quarantine, filepath.FromSlash(to))); err != nil {
			return to // there is none; another fault shows when the file is moved
		}
	}
}

// move renames, or copies and then removes where the quarantine is on another disk.
func move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		os.Remove(to)
		return err
	}
	return os.Remove(from)
}
