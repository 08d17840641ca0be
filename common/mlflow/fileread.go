package mlflow

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FindRuns reads the meta.yaml of every run of the experiment: there is no index.
func (s *fileStore) FindRuns(_ context.Context, experiment string, tags map[string]string) ([]RunInfo, error) {
	id, err := s.experiment(experiment)
	if err != nil || id == "" {
		return nil, err
	}
	dirs, err := os.ReadDir(filepath.Join(s.root, id))
	if err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	var out []RunInfo
	for _, d := range dirs {
		dir := filepath.Join(s.root, id, d.Name())
		if !d.IsDir() {
			continue
		}
		// A folder that cannot be read as a run is one that is being made, or something else's.
		m, err := readMeta(dir)
		if err != nil || text(m["run_id"]) != d.Name() || text(m["lifecycle_stage"]) == "deleted" {
			continue
		}
		r := RunInfo{ID: d.Name(), Experiment: id, Name: text(m["run_name"]), Status: Status(number(m["status"])), StartMS: number(m["start_time"]), EndMS: number(m["end_time"])}
		if r.Tags, err = readTexts(filepath.Join(dir, "tags")); err != nil {
			return nil, err
		}
		if carries(r.Tags, tags) {
			out = append(out, r)
		}
	}
	sortRuns(out)
	return out, nil
}

// carries reports whether have holds every pair of want.
func carries(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}

// sortRuns puts the oldest first; the id decides between runs of one millisecond, so that the order
// is the same at each call and in both stores.
func sortRuns(r []RunInfo) {
	slices.SortFunc(r, func(a, b RunInfo) int { return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), strings.Compare(a.ID, b.ID)) })
}

// readTexts reads a folder of one file a key; the key is the path below it, for a key may have slashes.
// A folder that is not there holds nothing.
func readTexts(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path == dir {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		key, err := filepath.Rel(dir, path)
		out[filepath.ToSlash(key)] = string(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	return out, nil
}

// Params gives the values as texts, as they were said. ErrNotFound: there is no such run.
func (s *fileStore) Params(_ context.Context, runID string) (map[string]string, error) {
	dir, err := s.runDir(runID)
	if err != nil {
		return nil, err
	}
	return readTexts(filepath.Join(dir, "params"))
}

// History of a metric that was never logged is empty.
func (s *fileStore) History(_ context.Context, runID, key string) ([]Point, error) {
	if err := CheckKey("metric", key); err != nil {
		return nil, err
	}
	dir, err := s.runDir(runID)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "metrics", filepath.FromSlash(key))
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	points, err := parseHistory(b)
	if err != nil {
		return nil, fmt.Errorf("MLflow: %s: %w", file, err)
	}
	return points, nil
}

// parseHistory reads the lines of a metric's file: time, value and, in all but
// old files, step; newer MLflows may add fields behind them.
func parseHistory(b []byte) ([]Point, error) {
	var out []Point
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 2 {
			return nil, fmt.Errorf("line %d: want time, value and step", n)
		}
		var p Point
		var err error
		if p.TimeMS, err = strconv.ParseInt(f[0], 10, 64); err != nil {
			return nil, fmt.Errorf("line %d: time %q is not an integer", n, cut(f[0], 40))
		}
		if p.Value, err = parsePython(f[1]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if len(f) > 2 { // else step 0, as MLflow has it
			if p.Step, err = strconv.ParseInt(f[2], 10, 64); err != nil {
				return nil, fmt.Errorf("line %d: step %q is not an integer", n, cut(f[2], 40))
			}
		}
		out = append(out, p)
	}
	return out, lines.Err()
}

// Artifacts gives the names of files and folders directly in folder; one that is not there has
// none. folder may come from a request and cannot lead out of the artifacts.
func (s *fileStore) Artifacts(_ context.Context, runID, folder string) ([]string, error) {
	dir, err := s.runDir(runID)
	if err != nil {
		return nil, err
	}
	if folder != "" && !filepath.IsLocal(folder) {
		return nil, fmt.Errorf("MLflow: %q is not a folder of artifacts", folder)
	}
	files, err := os.ReadDir(filepath.Join(dir, "artifacts", filepath.FromSlash(folder)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.Name())
	}
	return out, nil
}
