package mlflow

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"atelier/common/files"
)

// fileRun is a run's folder. It has no journal beside it, for the folder is on this machine: what the
// disk refuses (full, a share that is gone) stays in memory, within bounds, and is tried again with the
// next write and once more at the end. That holds for metrics and the end; a parameter, tag or artifact
// that fails is counted as lost at once, for its errors are mostly for good.
type fileRun struct {
	dir       string
	run, name string
	artifacts string // folder
	meta      map[string]any
	tell      func(string)

	mu     sync.Mutex
	left   map[string][]byte // lines that could not be written, by metric
	ends   *entry            // an end that could not be written
	lost   int               // other entries that could not be written
	reason error
	told   map[string]bool
}

// open finds the folder of artifacts: an experiment may keep them elsewhere.
func (f *fileRun) open() error {
	f.left, f.told = map[string][]byte{}, map[string]bool{}
	f.artifacts = filepath.Join(f.dir, "artifacts")
	uri := text(f.meta["artifact_uri"])
	if u, err := url.Parse(uri); err == nil && u.Scheme == "file" && u.Path != "" {
		f.artifacts = u.Path
	} else if err == nil && u.Scheme == "" && filepath.IsAbs(uri) {
		f.artifacts = uri
	} else if uri != "" {
		return fmt.Errorf("MLflow: the artifacts of %s lie at %s, which cannot be written from here; give this run an experiment whose artifacts are in a folder", f.dir, uri)
	}
	return nil
}

func (f *fileRun) id() string { return f.run }

// pending counts the metrics that wait for the disk; nothing of a folder is given up before the
// end.
func (f *fileRun) pending() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.left)), nil
}

// write takes entries in order. What fails is kept or counted, and told; it never stops those
// behind it.
func (f *fileRun) write(entries []entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Metrics go first, each file opened once a write. A seal or an end that came with them is then
	// written after every value said before it, and a seal knows whether one of them is missing.
	lines := f.left
	f.left = map[string][]byte{}
	if f.ends != nil {
		entries = append([]entry{*f.ends}, entries...)
		f.ends = nil
	}
	for _, e := range entries {
		if e.Metric != "" {
			lines[e.Metric] = appendPoint(lines[e.Metric], e)
		}
	}
	for _, key := range sortedKeys(lines) {
		if err := appendLines(f.dir, key, lines[key]); err != nil {
			// A disk that stays full must not take the training's memory, too.
			if len(lines[key]) < 1<<20 {
				f.left[key] = lines[key]
			} else {
				f.lost += strings.Count(string(lines[key]), "\n")
			}
			f.fail("metric "+key, err)
		}
	}
	for _, e := range entries {
		for _, p := range e.Params {
			f.check("parameter "+p.Key, f.param(p))
		}
		if e.Seal && (f.lost > 0 || len(f.left) > 0) {
			continue
		}
		for _, t := range e.Tags {
			err := f.put("tags", t.Key, t.Value)
			if err == nil && t.Key == TagName {
				f.meta["run_name"] = t.Value
				err = writeMeta(f.dir, f.meta)
			}
			f.check("tag "+t.Key, err)
		}
		if e.File != "" {
			f.check("artifact "+e.File, f.copy(e.File, e.Folder))
		}
		if e.End != 0 {
			delete(f.meta, "deleted_time") // as MLflow does when it writes the file again
			f.meta["status"], f.meta["end_time"], f.meta["tags"] = int64(e.End), e.TimeMS, []string{}
			if err := writeMeta(f.dir, f.meta); err != nil {
				f.ends = &e
				f.fail("end", err)
			}
		}
	}
}

// check counts an entry that failed for good.
func (f *fileRun) check(what string, err error) {
	if err != nil {
		f.lost++
		f.fail(what, err)
	}
}

// fail tells a cause once. Errors name files and differ from one another; what is under them, such as
// ENOSPC, does not, and is what a person has to hear of.
func (f *fileRun) fail(what string, err error) {
	if f.reason == nil {
		f.reason = fmt.Errorf("%s: %w", what, err)
	}
	var cause error = err
	for errors.Unwrap(cause) != nil {
		cause = errors.Unwrap(cause)
	}
	if key := cause.Error(); !f.told[key] && len(f.told) < 100 {
		f.told[key] = true
		f.tell(fmt.Sprintf("MLflow run %s: %s: %s", f.name, what, err))
	}
}

// finish tries once more what could not be written, and says what is lost.
func (f *fileRun) finish(context.Context) error {
	if f.mu.Lock(); len(f.left) == 0 && f.ends == nil && f.lost == 0 {
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	f.write(nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.lost
	for _, l := range f.left {
		n += strings.Count(string(l), "\n")
	}
	if f.ends != nil {
		n++
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("run %s: %d entries could not be written: %w", f.name, n, f.reason)
}

// path is a key's file; a key with slashes has folders, which are made.
func (f *fileRun) path(kind, key string) (string, error) {
	file := filepath.Join(f.dir, kind, filepath.FromSlash(key))
	if strings.Contains(key, "/") {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
	}
	return file, nil
}

// put writes a value, or replaces it, whole: MLflow may be reading.
func (f *fileRun) put(kind, key, value string) error {
	file, err := f.path(kind, key)
	if err != nil {
		return err
	}
	return replace(f.dir, file, []byte(value))
}

// param keeps the first value of a parameter, as MLflow does: what a run was made with does not change.
// The same value again is no error, so that a run which goes on may say its parameters anew.
func (f *fileRun) param(p pair) error {
	file, err := f.path("params", p.Key)
	if err != nil {
		return err
	}
	if b, err := os.ReadFile(file); err == nil {
		if string(b) != p.Value {
			return fmt.Errorf("it is %q already; MLflow does not change parameters", cut(string(b), 40))
		}
		return nil
	}
	return replace(f.dir, file, []byte(p.Value))
}

// appendPoint adds a line as MLflow writes it. Times may stand in any order there; Run.Metric sees
// to it that they ascend.
func appendPoint(b []byte, e entry) []byte {
	return fmt.Appendf(b, "%d %s %d\n", e.TimeMS, python(e.Value), e.Step)
}

// appendLines adds whole lines or nothing: half a line would spoil the file.
func appendLines(dir, key string, lines []byte) error {
	file := filepath.Join(dir, "metrics", filepath.FromSlash(key))
	if strings.Contains(key, "/") {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
	}
	w, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer w.Close()
	st, err := w.Stat()
	if err != nil {
		return err
	}
	if n, err := w.Write(lines); err != nil {
		if n > 0 {
			w.Truncate(st.Size())
		}
		return err
	}
	return nil
}

// copy puts an artifact where the run's artifacts are, which may be out of the run's folder.
func (f *fileRun) copy(file, folder string) error {
	return copyFile(file, filepath.Join(f.artifacts, filepath.FromSlash(folder)))
}

// copyFile copies a file into a folder, under its own name: it is there whole or not at all. It is not
// synced, for the original stays where it is.
func copyFile(file, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return files.CopyUnsynced(file, filepath.Join(dir, filepath.Base(file)), 0o644)
}
