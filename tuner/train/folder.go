package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"atelier/common/checkpoint"
	"atelier/common/files"
	"atelier/common/setting"
)

// Files of a training's folder.
const (
	BestFile        = "best_model.pth"
	FinalFile       = "final_model.pth"
	HistoryFile     = "training_history.json"
	DiagnosticsFile = "training_diagnostics.txt"
	SheetsDir       = "image_batches"
	resumeDir       = "resume" // what --resume needs: run.json, the last training checkpoint, the best one, the trainer's log
	runFile         = "run.json"
	bestLink        = "best.pth"
	logFile         = "trainer.log"
	lockFile        = ".lock"
)

// folder is a training's folder while this process holds it.
type folder struct {
	dir  string
	lock *os.File
}

func (f *folder) path(name ...string) string {
	return filepath.Join(append([]string{f.dir}, name...)...)
}

func (f *folder) resume(name ...string) string {
	return f.path(append([]string{resumeDir}, name...)...)
}

// hold makes a folder, if need be, and keeps others from training into it.
func hold(dir string) (*folder, error) {
	f := &folder{dir: dir}
	if err := os.MkdirAll(f.resume(), 0o755); err != nil {
		return nil, fmt.Errorf("folder for the results: %w", err)
	}
	var err error
	f.lock, err = files.Lock(f.resume(lockFile), fmt.Errorf("another training is writing to %s: wait for it, or name another folder with --out", dir))
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *folder) release() { f.lock.Close() }

// results lists what an earlier training left.
func (f *folder) results() []string {
	var found []string
	for _, name := range []string{BestFile, FinalFile, HistoryFile, DiagnosticsFile, SheetsDir, filepath.Join(resumeDir, runFile)} {
		if _, err := os.Stat(f.path(name)); err == nil {
			found = append(found, name)
		}
	}
	return found
}

// ExistsError refuses to train into a folder that holds another training.
type ExistsError struct {
	Dir    string
	Status string // of the training in it
	Epochs int
}

func (e *ExistsError) Error() string {
	what := "a training already"
	if e.Status != "" {
		what = fmt.Sprintf("a training already (%s, %d epochs)", e.Status, e.Epochs)
		if e.Status == Running {
			what = fmt.Sprintf("a training that was cut off after %d epochs", e.Epochs)
		}
	}
	return fmt.Sprintf("%s holds %s: --resume %s goes on with it, --overwrite replaces it, --out DIR puts this one elsewhere", e.Dir, what, e.Dir)
}

// begin prepares the folder for a new training.
func (f *folder) begin(overwrite bool) error {
	if err := f.earlier().Recover(); err != nil {
		return err
	}
	found := f.results()
	if len(found) > 0 && !overwrite {
		e := &ExistsError{Dir: f.dir}
		if h, err := ReadHistory(f.path(HistoryFile)); err == nil {
			e.Status, e.Epochs = h.Status, len(h.Epochs)
		}
		return e
	}
	if len(found) > 0 {
		if err := f.earlier().Set(); err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	err := f.drop(func(int) bool { return true })
	if e := os.Remove(f.resume(bestLink)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// stored is a training checkpoint in the resume folder.
type stored struct {
	path  string
	epoch int
}

var checkpointName = regexp.MustCompile(`^epoch-(\d+)-run-\d+\.pth$`)

// checkpoints lists the resume folder's, the oldest first.
func (f *folder) checkpoints() ([]stored, error) {
	entries, err := os.ReadDir(f.resume())
	if err != nil {
		return nil, err
	}
	var all []stored
	for _, e := range entries { // names sort by epoch up to 9999
		if m := checkpointName.FindStringSubmatch(e.Name()); m != nil {
			n, err := strconv.Atoi(m[1])
			if err == nil {
				all = append(all, stored{f.resume(e.Name()), n})
			}
		}
	}
	return all, nil
}

// newest is the checkpoint to go on from: the newest whose epoch the history
// knows, else the newest; nil if there is none.
func newest(all []stored, h *History) *stored {
	var best *stored
	for i := range all {
		c := &all[i]
		known := h.at(c.epoch) >= 0
		if best == nil || known && h.at(best.epoch) < 0 || known == (h.at(best.epoch) >= 0) && c.epoch > best.epoch {
			best = c
		}
	}
	return best
}

// drop removes the checkpoints of epochs that it is told to.
func (f *folder) drop(which func(epoch int) bool) error {
	all, err := f.checkpoints()
	for _, c := range all {
		if which(c.epoch) {
			err = errors.Join(err, os.Remove(c.path))
		}
	}
	return err
}

// keepFrom removes the checkpoints before an epoch's. Later ones stay: the
// trainer may be ahead of what it has been heard to say.
func (f *folder) keepFrom(epoch int) error { return f.drop(func(e int) bool { return e < epoch }) }

// markBest makes the best checkpoint findable under one name, without copying
// it.
func (f *folder) markBest(path string) error {
	tmp := f.resume("." + bestLink + ".new")
	os.Remove(tmp)
	if err := os.Link(path, tmp); err != nil {
		// Not every file system has links.
		if err := files.Copy(path, f.resume(bestLink), 0o644); err != nil {
			return fmt.Errorf("keep the best checkpoint: %w", err)
		}
		return nil
	}
	return os.Rename(tmp, f.resume(bestLink))
}

// export makes model files, which anybody can open, of the training
// checkpoints.
func (f *folder) export(finished bool, last int) error {
	if _, err := os.Stat(f.resume(bestLink)); err == nil {
		if _, err := checkpoint.Export(f.resume(bestLink), f.path(BestFile), false); err != nil {
			return fmt.Errorf("%s: %w", BestFile, err)
		}
	}
	if !finished {
		return nil
	}
	all, err := f.checkpoints()
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.epoch == last {
			if _, err := checkpoint.Export(c.path, f.path(FinalFile), false); err != nil {
				return fmt.Errorf("%s: %w", FinalFile, err)
			}
		}
	}
	return nil
}

// save writes run.json.
func (f *folder) save(p *Plan) error {
	s := saved{Format: savedFormat, Base: p.BaseDir, Threads: p.Threads, Tracked: p.trackedRun, Sweep: p.sweep}
	for _, v := range p.Config.All() {
		s.Values = append(s.Values, savedValue{v.Key, v.Data, v.Source()})
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return files.Write(f.resume(runFile), append(b, '\n'), 0o644)
}

// Resumption is a training to go on with.
type Resumption struct {
	Folder  string // "" = the checkpoint lies elsewhere, a new folder is made
	File    string // checkpoint; "" = none was written yet
	Epoch   int    // of the checkpoint
	Base    string // folder its relative paths start from
	Threads int    // of the CPU; 0 = not known
	Tracked string // the run of MLflow; "" = none
	Sweep   string // that trains it on a cluster; "" = it is trained here
}

// Resume reads what --resume names, a training's folder, a file in it, or a
// training checkpoint from anywhere, and lays the settings of that training
// into c.
func Resume(path string, c *setting.Config) (*Resumption, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	dir := path
	if !st.IsDir() {
		dir = filepath.Dir(path)
	}
	if filepath.Base(dir) == resumeDir {
		dir = filepath.Dir(dir)
	}
	f := &folder{dir: dir}
	b, err := os.ReadFile(f.resume(runFile))
	if errors.Is(err, fs.ErrNotExist) && !st.IsDir() {
		return fromCheckpoint(path, c)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--resume: %s holds no training (no %s/%s in it)", path, resumeDir, runFile)
	}
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	r := &Resumption{Folder: dir}
	if err := r.settle(b, c); err != nil {
		return nil, fmt.Errorf("--resume: %s: %w", f.resume(runFile), err)
	}
	if m := checkpointName.FindStringSubmatch(filepath.Base(path)); m != nil && !st.IsDir() {
		r.File = path
		r.Epoch, _ = strconv.Atoi(m[1])
		return r, nil
	}
	h, err := ReadHistory(f.path(HistoryFile))
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	all, err := f.checkpoints()
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	if at := newest(all, h); at != nil {
		r.File, r.Epoch = at.path, at.epoch
	}
	return r, nil
}

func (r *Resumption) settle(run []byte, c *setting.Config) error {
	var s saved
	d := json.NewDecoder(strings.NewReader(string(run)))
	d.UseNumber()
	if err := d.Decode(&s); err != nil {
		return err
	}
	if s.Format != savedFormat {
		return fmt.Errorf("it is of format %d, this program reads %d", s.Format, savedFormat)
	}
	r.Base, r.Threads, r.Tracked, r.Sweep = s.Base, s.Threads, s.Tracked, s.Sweep
	for _, v := range s.Values {
		if err := c.Set(v.Key, v.Value, setting.Resumed, "resumed run, "+strings.TrimPrefix(v.Source, "resumed run, ")); err != nil {
			return err
		}
	}
	return nil
}

// fromCheckpoint takes the settings a training checkpoint carries.
func fromCheckpoint(path string, c *setting.Config) (*Resumption, error) {
	fail := func(err error) (*Resumption, error) { return nil, fmt.Errorf("--resume: %s: %w", path, err) }
	file, err := checkpoint.Open(path)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	root, _ := file.Root.(*checkpoint.Dict)
	own, ok := checkpoint.Lookup[*checkpoint.Dict](root, "atelier")
	m, err := file.Model()
	if err != nil {
		return fail(err)
	}
	if !ok || m.Config == "" || m.Epoch == 0 {
		return fail(errors.New("it is no training checkpoint: it lacks the optimiser's and the random state. Name the training's folder, or start from its weights with --set weights=FILE"))
	}
	var values map[string]any
	d := json.NewDecoder(strings.NewReader(m.Config))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return fail(err)
	}
	for _, name := range c.Table.Names() {
		v, ok := values[name]
		if text, isText := v.(string); !ok || isText && text == "" || strings.HasPrefix(fmt.Sprint(v), "-") { // not given
			continue
		}
		if err := c.Set(name, v, setting.Resumed, filepath.Base(path)); err != nil {
			return fail(err)
		}
	}
	r := &Resumption{File: path, Epoch: m.Epoch}
	if text, ok := checkpoint.Lookup[string](own, "seed"); ok {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fail(fmt.Errorf("seed %q: %w", text, err))
		}
		if err := c.Set(keySeed, seed, setting.Resumed, filepath.Base(path)); err != nil {
			return fail(err)
		}
	}
	if n, ok := checkpoint.Lookup[int64](own, "threads"); ok {
		r.Threads = int(n)
	}
	return r, nil
}

// From makes a plan go on where a resumption stands.
func (p *Plan) From(r *Resumption) {
	p.resumeFile, p.resumeEpoch, p.trackedRun, p.sweep = r.File, r.Epoch, r.Tracked, r.Sweep
	if r.Folder != "" {
		p.Folder, p.again = r.Folder, true
	}
	if r.Threads > 0 && p.Config.Get(keyThreads).Origin <= setting.Resumed {
		p.Threads = r.Threads // rounding depends on it
	}
}
