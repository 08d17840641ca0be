package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
)

const (
	// ResumeDir is the folder in a folder of results with what --resume needs.
	ResumeDir = "resume"
	// RunFile lies in it and says what was asked for.
	RunFile  = "run.json"
	lockFile = ".lock"

	format = 1 // of run.json
)

// Kind is what differs between the folders of trainings and of tunings.
type Kind struct {
	Noun    string                 // for people
	Results []string               // what a session leaves that is worth having: names in the folder
	Keeps   func(name string) bool // reports whether such a name in resume/ is of its making; run.json is
	State   func(*Folder) State    // of what lies in a folder
	// Stands reports whether what lies in a folder is worth having by itself,
	// although nobody said so by DropReplaced; nil = it is not.
	Stands func(*Folder) (bool, error)
	// Nothing reports whether what lies in a folder is of work of which nothing came,
	// so that new work may begin there without --overwrite; nil = it never is.
	Nothing func(*Folder) bool
}

// State is how the work stands whose results lie in a folder.
type State struct {
	Text      string // for people: "a training already"
	Resumable bool   // --resume goes on with it
	GoesOn    bool   // in a cluster, although it may have nothing to show yet
	Sweep     string // as which it does; "" = not known
}

// Folder is a folder of results.
type Folder struct {
	Dir  string
	kind *Kind
	lock *os.File // nil: only read
}

// At is a folder to read from.
func At(kind *Kind, dir string) *Folder { return &Folder{Dir: dir, kind: kind} }

// Hold makes a folder, if need be, and keeps other processes from writing to it
// until Release.
func Hold(kind *Kind, dir string) (*Folder, error) {
	f := At(kind, dir)
	if err := os.MkdirAll(f.InResume(), 0o755); err != nil {
		return nil, fmt.Errorf("folder for the results: %w", err)
	}
	var err error
	f.lock, err = files.Lock(f.InResume(lockFile), fmt.Errorf("another %s is writing to %s: wait for it, or name another folder with --out", kind.Noun, dir))
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Release lets others write.
func (f *Folder) Release() { f.lock.Close() }

// Path is one in the folder.
func (f *Folder) Path(name ...string) string {
	return filepath.Join(append([]string{f.Dir}, name...)...)
}

// InResume is a path in resume/.
func (f *Folder) InResume(name ...string) string {
	return f.Path(append([]string{ResumeDir}, name...)...)
}

// results lists what an earlier session left that is worth having.
func (f *Folder) results() (found []string) {
	for _, name := range append([]string{filepath.Join(ResumeDir, RunFile)}, f.kind.Results...) {
		if _, err := os.Stat(f.Path(name)); err == nil {
			found = append(found, name)
		}
	}
	return found
}

// leftovers lists what sessions keep in resume/ beside run.json, half-written
// files included.
func (f *Folder) leftovers() (found []string, err error) {
	entries, err := os.ReadDir(f.InResume())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if name := e.Name(); f.kind.Keeps(name) || strings.HasPrefix(name, ".") && name != lockFile {
			found = append(found, filepath.Join(ResumeDir, name))
		}
	}
	return found, err
}

// Begin prepares a folder that is held for new work. Results in it are refused
// with an ExistsError, or kept in replaced/ where they may be overwritten.
func (f *Folder) Begin(overwrite bool) error {
	if overwrite || !f.kind.State(f).GoesOn {
		if err := f.recover(); err != nil {
			return err
		}
	}
	found := f.results()
	if len(found) > 0 && !overwrite && f.kind.Nothing != nil && f.kind.Nothing(f) {
		for _, name := range found {
			if err := os.RemoveAll(f.Path(name)); err != nil {
				return err
			}
		}
		found = nil
	}
	if len(found) > 0 && !overwrite {
		return &ExistsError{f.Dir, f.kind.State(f)}
	}
	if len(found) > 0 {
		if err := f.setAside(); err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	left, err := f.leftovers()
	for _, name := range left {
		err = errors.Join(err, os.RemoveAll(f.Path(name)))
	}
	return err
}

// Head begins run.json.
type Head struct {
	Format int    `json:"format"`
	Base   string `json:"base_dir"` // relative paths start from it
}

// NewHead is that of a run.json of today.
func NewHead(base string) Head { return Head{format, base} }

// Save writes run.json, durably: what is asked of a cluster next must be known
// after a power cut. run begins with a Head.
func (f *Folder) Save(run any) error {
	b, err := json.MarshalIndent(run, "", "  ")
	if err != nil {
		return err
	}
	return files.Write(f.InResume(RunFile), append(b, '\n'), 0o644)
}

// absentError is of a folder that nobody began work in.
type absentError string

// Absent is an error that is fs.ErrNotExist with a text of its own.
func Absent(text string) error { return absentError(text) }

func (e absentError) Error() string { return string(e) }

// Is makes it an fs.ErrNotExist.
func (e absentError) Is(target error) bool { return target == fs.ErrNotExist }

// State is how the work stands whose results lie in the folder.
func (f *Folder) State() State { return f.kind.State(f) }

// Load reads run.json. Numbers in values of no fixed type stay as they are
// written (json.Number).
func (f *Folder) Load(run any) error {
	b, err := os.ReadFile(f.InResume(RunFile))
	if errors.Is(err, fs.ErrNotExist) {
		return absentError(fmt.Sprintf("%s has no %s in it (no %s/%s)", f.Dir, f.kind.Noun, ResumeDir, RunFile))
	}
	if err == nil {
		if err = Decode(b, run); err != nil {
			err = fmt.Errorf("%s is not that of a %s: %w", f.InResume(RunFile), f.kind.Noun, err)
		}
	}
	return err
}

// Decode reads the text of a run.json.
func Decode(text []byte, run any) error {
	var head Head
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(run); err != nil {
		return err
	}
	if err := json.Unmarshal(text[:d.InputOffset()], &head); err != nil {
		return err
	}
	if head.Format != format {
		return fmt.Errorf("it is of format %d, this program reads %d", head.Format, format)
	}
	return nil
}

// DirOf is the folder of results that a path leads to, which names it, resume/
// or a file in either.
func DirOf(path string) string {
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		path = filepath.Dir(path)
	}
	if filepath.Base(path) == ResumeDir {
		path = filepath.Dir(path)
	}
	return path
}
