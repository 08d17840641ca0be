package mlflow

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"atelier/common/files"
)

// Folders that are no experiments.
const (
	trashFolder  = ".trash"
	modelsFolder = "models"
)

// fileStore is an mlruns folder, laid out as MLflow's own FileStore does:
//
//	.trash/                                    what was deleted; our lock for making experiments is on it
//	EXPERIMENT/meta.yaml                       name, lifecycle stage, where artifacts lie
//	EXPERIMENT/RUN/meta.yaml                   name, status, start, end, where artifacts lie
//	EXPERIMENT/RUN/params/KEY, tags/KEY        the value, without a newline
//	EXPERIMENT/RUN/metrics/KEY                 a line a value: time in ms, value, step
//	EXPERIMENT/RUN/artifacts/
//
// A key with slashes is a path, so params, tags and metrics may hold folders. There is no index: to
// find something by name or tag is to read every meta.yaml, which is what MLflow does too.
type fileStore struct {
	root string
	o    Options

	mu   sync.Mutex
	runs []*Run // begun and not closed yet
}

// openFiles makes nothing: a store that is only read, or never used, leaves no folder behind.
func openFiles(root string, o Options) (*fileStore, error) {
	if st, err := os.Stat(root); err == nil && !st.IsDir() {
		return nil, fmt.Errorf("MLflow: %s is not a folder", root)
	}
	return &fileStore{root: root, o: o}, nil
}

// String is the folder's absolute path.
func (s *fileStore) String() string { return s.root }

// Ready has nothing to wait for: a folder's runs leave nothing behind.
func (s *fileStore) Ready(context.Context) error { return nil }

// Hint gives the two ways to look at a folder of runs: MLflow 3 opens one only when it is told to,
// and can move it into a database. The path is relative where the store lies below the working
// folder, so that the line can be pasted where it is read.
func (s *fileStore) Hint() []string {
	dir := s.root
	if rel, err := filepath.Rel(s.o.Dir, s.root); err == nil && filepath.IsLocal(rel) {
		dir = "./" + filepath.ToSlash(rel)
	}
	dir = shell(dir)
	return []string{
		"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri " + dir,
		"mlflow migrate-filestore --source " + dir + " --target sqlite:///mlflow.db",
	}
}

// shell quotes a path for a POSIX shell where it needs quoting.
func shell(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+,:@%", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}

// prepare makes the folder with its trash, as MLflow does.
func (s *fileStore) prepare() error {
	if err := os.MkdirAll(filepath.Join(s.root, trashFolder), 0o755); err != nil {
		return fmt.Errorf("MLflow: %w", err)
	}
	return nil
}

// locked runs f while no other process of ours makes an experiment. The lock is held for a few small
// files; 30 s without it mean that a process hangs, and an error is better than a training that waits.
func (s *fileStore) locked(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	lock, err := files.WaitLock(ctx, filepath.Join(s.root, trashFolder))
	if err != nil {
		return fmt.Errorf("MLflow: lock %s: %w", filepath.Join(s.root, trashFolder), err)
	}
	defer lock.Close()
	return f()
}

// Experiment holds the folder's lock while it makes one: processes that begin at once
// make it once. MLflow itself does not lock.
func (s *fileStore) Experiment(ctx context.Context, name string) (string, error) {
	if err := checkExperiment(name); err != nil {
		return "", err
	}
	if id, err := s.experiment(name); err != nil || id != "" {
		return id, err
	}
	_, err := os.Stat(s.root)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := s.prepare(); err != nil {
		return "", err
	}
	var id string
	err = s.locked(ctx, func() (err error) {
		// MLflow makes Default (id 0) when it makes the folder, and only then: a person who deletes it later
		// does not get it back. Another process may have come in between, and made its experiment.
		if fresh {
			if other, err := s.experiment("Default"); err != nil {
				return err
			} else if _, err := os.Stat(filepath.Join(s.root, "0")); other == "" && errors.Is(err, fs.ErrNotExist) {
				if err := s.makeExperiment("0", "Default"); err != nil {
					return err
				}
			}
		}
		if id, err = s.experiment(name); err != nil || id != "" {
			return err
		}
		if id, err = newExperimentID(); err != nil {
			return err
		}
		return s.makeExperiment(id, name)
	})
	return id, err
}

// newExperimentID draws 18 digits, as MLflow does.
func newExperimentID() (string, error) {
	low := big.NewInt(100_000_000_000_000_000)
	n, err := rand.Int(rand.Reader, new(big.Int).Mul(low, big.NewInt(9)))
	if err != nil {
		return "", fmt.Errorf("MLflow: experiment id: %w", err)
	}
	return n.Add(n, low).String(), nil
}

// newRunID draws 32 hexadecimal digits, which is how MLflow spells a UUID.
func newRunID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("MLflow: run id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

// fileURI escapes what a path may hold and a URI may not, such as spaces.
func fileURI(path string) string { return (&url.URL{Scheme: "file", Path: path}).String() }

// makeExperiment fails where the id's folder is there already: two experiments never share one.
func (s *fileStore) makeExperiment(id, name string) error {
	dir := filepath.Join(s.root, id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("MLflow: %w", err)
	}
	ms := s.o.now().UnixMilli()
	if err := writeMeta(dir, map[string]any{"artifact_location": fileURI(dir), "creation_time": ms, "experiment_id": id,
		"last_update_time": ms, "lifecycle_stage": "active", "name": name}); err != nil {
		return fmt.Errorf("MLflow: %w", err)
	}
	return nil
}

// experiment finds a living experiment; "" means none. Folders that cannot be
// read as one are passed over, as MLflow does. Of two of one name the older counts.
func (s *fileStore) experiment(name string) (string, error) {
	dirs, err := os.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("MLflow: %w", err)
	}
	found, born := "", int64(0)
	for _, d := range dirs {
		if !d.IsDir() || d.Name() == trashFolder || d.Name() == modelsFolder {
			continue
		}
		m, err := readMeta(filepath.Join(s.root, d.Name()))
		if err != nil || text(m["name"]) != name || text(m["lifecycle_stage"]) != "active" || text(m["experiment_id"]) != d.Name() {
			continue
		}
		if t := number(m["creation_time"]); found == "" || t < born {
			found, born = d.Name(), t
		}
	}
	return found, nil
}

// StartRun makes the run's folder before it returns; what is logged is written behind.
func (s *fileStore) StartRun(ctx context.Context, spec RunSpec) (*Run, error) {
	var f *fileRun
	var err error
	if spec.RunID != "" {
		f, err = s.reopen(spec.RunID)
	} else {
		f, err = s.create(ctx, spec)
	}
	if err != nil {
		return nil, err
	}
	r := startRun(f, f.name, s.o)
	s.mu.Lock()
	s.runs = append(s.runs, r)
	s.mu.Unlock()
	return r, nil
}

// create makes a run's folder. MLflow takes a folder for a run from the moment it has a meta.yaml,
// so everything that a reader of a run expects is there before it; tags follow, as MLflow writes
// them.
func (s *fileStore) create(ctx context.Context, spec RunSpec) (*fileRun, error) {
	experiment, err := s.Experiment(ctx, spec.Experiment)
	if err != nil {
		return nil, err
	}
	parent := spec.ParentID
	if spec.Parent != nil {
		parent = spec.Parent.ID()
	}
	id, err := newRunID()
	if err != nil {
		return nil, err
	}
	tags, err := spec.tags(s.o, parent)
	if err != nil {
		return nil, err
	}
	start := spec.Start
	if start.IsZero() {
		start = s.o.now()
	}
	exp, err := readMeta(filepath.Join(s.root, experiment))
	if err != nil {
		return nil, fmt.Errorf("MLflow: experiment %s: %w", spec.Experiment, err)
	}
	location := text(exp["artifact_location"])
	if location == "" {
		location = fileURI(filepath.Join(s.root, experiment))
	}
	f := &fileRun{dir: filepath.Join(s.root, experiment, id), run: id, name: tags[TagName], tell: s.o.Notify}
	// All keys that MLflow's FileStore writes, also those that nobody reads any more (source_*,
	// run_uuid): files from here and from there compare. source_type 4 is LOCAL.
	f.meta = map[string]any{"artifact_uri": strings.TrimSuffix(location, "/") + "/" + id + "/artifacts", "deleted_time": nil, "end_time": nil, "entry_point_name": "",
		"experiment_id": experiment, "lifecycle_stage": "active", "run_id": id, "run_name": f.name, "run_uuid": id, "source_name": "", "source_type": int64(4),
		"source_version": "", "start_time": start.UnixMilli(), "status": int64(Running), "tags": []string{}, "user_id": s.o.User}
	if err := f.open(); err != nil {
		return nil, err
	}
	for _, sub := range []string{"metrics", "params", "tags"} {
		if err := os.MkdirAll(filepath.Join(f.dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("MLflow: %w", err)
		}
	}
	if err := os.MkdirAll(f.artifacts, 0o755); err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	if err := writeMeta(f.dir, f.meta); err != nil {
		return nil, fmt.Errorf("MLflow: %w", err)
	}
	for _, k := range sortedKeys(tags) {
		if err := f.put("tags", k, tags[k]); err != nil {
			return nil, fmt.Errorf("MLflow: %w", err)
		}
	}
	return f, nil
}

// sortedKeys are a map's keys, in one order for files and requests.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// tags of a new run: what MLflow shows of every run, and what the caller gave, which counts where both
// have a key. A run needs a name, for the web page of MLflow lists runs by it.
func (spec RunSpec) tags(o Options, parent string) (map[string]string, error) {
	all := map[string]string{TagUser: o.User, TagSource: o.Source, TagSourceType: "LOCAL", TagName: spec.Name}
	if parent != "" {
		all[TagParent] = parent
	}
	for k, v := range spec.Tags {
		if err := CheckKey("tag", k); err != nil {
			return nil, err
		}
		all[k] = cut(strings.ToValidUTF8(v, "\uFFFD"), maxTag)
	}
	if all[TagName] == "" {
		all[TagName] = "run " + o.now().UTC().Format("2006-01-02 15:04:05")
	}
	return all, nil
}

// reopen finds a run that is there already and makes it RUNNING again, its end forgotten. A run in the
// trash is not taken out of it behind a person's back: ErrDeleted. No such run: ErrNotFound.
func (s *fileStore) reopen(id string) (*fileRun, error) {
	dir, err := s.runDir(id)
	if err != nil {
		return nil, err
	}
	m, err := readMeta(dir)
	if err != nil {
		return nil, fmt.Errorf("MLflow: run %s: %w", id, err)
	}
	if text(m["lifecycle_stage"]) == "deleted" {
		return nil, fmt.Errorf("MLflow: run %s: %w", id, ErrDeleted)
	}
	f := &fileRun{dir: dir, run: id, name: text(m["run_name"]), meta: m, tell: s.o.Notify}
	if err := f.open(); err != nil {
		return nil, err
	}
	m["status"], m["end_time"], m["tags"] = int64(Running), nil, []string{}
	delete(m, "deleted_time")
	if err := writeMeta(dir, m); err != nil {
		return nil, fmt.Errorf("MLflow: run %s: %w", id, err)
	}
	return f, nil
}

// runDir finds a run by its id alone, in whichever experiment it lies. The id is checked first: it
// becomes part of a path.
func (s *fileStore) runDir(id string) (string, error) {
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("MLflow: %q is not a run id, which has 32 hexadecimal digits", cut(id, 40))
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(s.root), "*", id, metaFile))
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("MLflow: run %s in %s: %w", id, s.root, ErrNotFound)
	}
	return filepath.Dir(found[0]), nil
}

// escapeGlob makes a path of a person's choosing match itself in a pattern.
func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Close writes what waits; a folder has no journal, so what fails now is lost.
func (s *fileStore) Close(ctx context.Context) error {
	s.mu.Lock()
	runs := s.runs
	s.runs = nil
	s.mu.Unlock()
	return closeRuns(ctx, s.String(), runs)
}

// closeRuns closes all at once: with a server that does not answer each takes
// some seconds.
func closeRuns(ctx context.Context, store string, runs []*Run) error {
	errs := make([]error, len(runs))
	var wg sync.WaitGroup
	for i, r := range runs {
		wg.Go(func() { errs[i] = r.close(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("MLflow at %s: %w", store, err)
	}
	return nil
}
