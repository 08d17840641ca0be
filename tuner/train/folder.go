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
	"atelier/common/plot"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/session"
)

// Files of a training's folder.
const (
	BestFile        = "best_model.pth"
	FinalFile       = "final_model.pth"
	HistoryFile     = "training_history.json"
	DiagnosticsFile = "training_diagnostics.txt"
	CurveFile       = "train_history.png"
	SheetsDir       = "image_batches"
	bestLink        = "best.pth" // in resume/, beside the last training checkpoint and the trainer's log
	logFile         = "trainer.log"
)

var kind = &session.Kind{Noun: "training", Results: []string{BestFile, FinalFile, HistoryFile, DiagnosticsFile, CurveFile, plot.SVG(CurveFile), SheetsDir},
	Keeps: func(name string) bool { return name == bestLink || name == logFile || checkpointName.MatchString(name) },
	State: func(f *session.Folder) session.State {
		var s saved
		h, err := ReadHistory(f.Path(HistoryFile))
		switch {
		case err != nil || h.Status == "":
			return session.State{Text: "a training already", Resumable: true}
		case h.Status == Running && f.Load(&s) == nil && s.Sweep != "":
			return session.State{Text: "a training that continues in the cluster as sweep " + s.Sweep, Resumable: true, GoesOn: true, Sweep: s.Sweep}
		case h.Status == Running:
			return session.State{Text: "a training that was cut off after " + epochs(len(h.Epochs)), Resumable: true}
		}
		return session.State{Text: fmt.Sprintf("a training already (%s, %s)", h.Status, epochs(len(h.Epochs))), Resumable: true}
	},
	// A training that failed before its first epoch ended is in nobody's way, unless a
	// cluster may be at it.
	Nothing: func(f *session.Folder) bool {
		var s saved
		h, err := ReadHistory(f.Path(HistoryFile))
		if err != nil || h.Status == "" || len(h.Epochs) > 0 || f.Load(&s) != nil || s.Sweep != "" {
			return false
		}
		all, err := folder{f}.checkpoints()
		for _, name := range []string{f.Path(BestFile), f.Path(FinalFile), f.InResume(bestLink)} {
			if _, e := os.Stat(name); e == nil {
				return false
			}
		}
		return err == nil && len(all) == 0
	},
	Stands: func(f *session.Folder) (bool, error) {
		all, err := folder{f}.checkpoints()
		_, best := os.Stat(f.InResume(bestLink)) // what a cluster's training is left with
		return len(all) > 0 || best == nil, err
	},
}

func epochs(n int) string {
	if n == 1 {
		return "1 epoch"
	}
	return fmt.Sprintf("%d epochs", n)
}

// folder is a training's.
type folder struct{ *session.Folder }

// stored is a training checkpoint in the resume folder.
type stored struct {
	path  string
	epoch int
}

var checkpointName = regexp.MustCompile(`^epoch-(\d+)-run-\d+\.pth$`)

// checkpoints lists the resume folder's, the oldest first.
func (f folder) checkpoints() ([]stored, error) {
	entries, err := os.ReadDir(f.InResume())
	if err != nil {
		return nil, err
	}
	var all []stored
	for _, e := range entries { // names sort by epoch up to 9999
		if m := checkpointName.FindStringSubmatch(e.Name()); m != nil {
			n, err := strconv.Atoi(m[1])
			if err == nil {
				all = append(all, stored{f.InResume(e.Name()), n})
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
func (f folder) drop(which func(epoch int) bool) error {
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
func (f folder) keepFrom(epoch int) error { return f.drop(func(e int) bool { return e < epoch }) }

// markBest makes the best checkpoint findable under one name, without copying
// it.
func (f folder) markBest(path string) error {
	tmp := f.InResume("." + bestLink + ".new")
	os.Remove(tmp)
	if err := os.Link(path, tmp); err != nil {
		// Not every file system has links.
		if err := files.Copy(path, f.InResume(bestLink), 0o644); err != nil {
			return fmt.Errorf("keep the best checkpoint: %w", err)
		}
		return nil
	}
	return os.Rename(tmp, f.InResume(bestLink))
}

// export makes model files, which anybody can open, of the training
// checkpoints.
func (f folder) export(finished bool, last int) error {
	if _, err := os.Stat(f.InResume(bestLink)); err == nil {
		if _, err := checkpoint.Export(f.InResume(bestLink), f.Path(BestFile), false); err != nil {
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
			if _, err := checkpoint.Export(c.path, f.Path(FinalFile), false); err != nil {
				return fmt.Errorf("%s: %w", FinalFile, err)
			}
		}
	}
	return nil
}

// save writes run.json.
func (f folder) save(p *Plan) error {
	s := saved{Head: session.NewHead(p.BaseDir), Threads: p.Threads, Start: p.Start(), Tracked: p.trackedRun, Request: p.requestID, Sweep: p.sweep, Cluster: p.addresses}
	for _, v := range p.Config.All() {
		s.Values = append(s.Values, savedValue{v.Key, v.Data, v.Source()})
	}
	return f.Save(s)
}

// Resumption is a training to go on with.
type Resumption struct {
	Folder  string // "" = the checkpoint lies elsewhere, a new folder is made
	File    string // checkpoint; "" = none was written yet
	Epoch   int    // of the checkpoint
	Base    string // folder its relative paths start from
	Threads int    // of the CPU; 0 = not known
	Tracked string // the run of MLflow; "" = none
	Remote  bool   // it was given to a cluster
	// Finished says that its session came to its end; the checkpoint is its last.
	Finished bool
	Sweep    string // that trains it there; "" = it was asked for, and no answer came
	Cluster  string // where that cluster is; "" = an earlier build did not record it
	request  string
}

// Resume reads what --resume names, a training's folder, a file in it, or a
// training checkpoint from anywhere, and lays the settings of that training
// into c.
func Resume(path string, c *setting.Config) (*Resumption, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	f := folder{session.At(kind, session.DirOf(path))}
	r := &Resumption{Folder: f.Dir}
	if _, err := os.Stat(f.InResume(session.RunFile)); err != nil && !st.IsDir() {
		return fromCheckpoint(path, c)
	}
	if err := r.settle(f, c); err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	if m := checkpointName.FindStringSubmatch(filepath.Base(path)); m != nil && !st.IsDir() {
		r.File = path
		r.Epoch, _ = strconv.Atoi(m[1])
		return r, nil
	}
	h, err := ReadHistory(f.Path(HistoryFile))
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	all, err := f.checkpoints()
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	r.Finished = h.Status == Finished
	if at := newest(all, h); at != nil {
		r.File, r.Epoch = at.path, at.epoch
	}
	return r, nil
}

// Unfinished is the training below the folder of results that was at work last and
// has not finished. Those that diverged are left out: they would again.
func Unfinished(base string, c *setting.Config) (string, error) {
	root := setting.Absolute(base, c.String(keyCheckpoints))
	entries, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	best, when, finished := "", int64(0), 0
	for _, e := range entries {
		f := session.At(kind, filepath.Join(root, e.Name()))
		if _, err := os.Stat(f.InResume(session.RunFile)); err != nil {
			continue
		}
		h, err := ReadHistory(f.Path(HistoryFile))
		if err != nil {
			continue
		}
		if h.Status == Finished || h.Status == Diverged {
			finished++
			continue
		}
		for _, name := range []string{f.Path(HistoryFile), f.InResume(session.RunFile)} {
			if st, err := os.Stat(name); err == nil && st.ModTime().UnixNano() > when {
				best, when = f.Dir, st.ModTime().UnixNano()
			}
		}
	}
	switch {
	case best != "":
		return best, nil
	case finished > 0:
		return "", session.Absent(fmt.Sprintf("no unfinished training in %s: to train a finished one longer give its folder, --resume DIR --epochs N", root))
	}
	return "", session.Absent(fmt.Sprintf("no unfinished training in %s: give its folder, --resume DIR", root))
}

// settle lays the settings of a training's run.json into c.
func (r *Resumption) settle(f folder, c *setting.Config) error {
	var s saved
	if err := f.Load(&s); err != nil {
		return err
	}
	r.Base, r.Threads, r.Tracked, r.Sweep, r.request, r.Remote, r.Cluster = s.Base, s.Threads, s.Tracked, s.Sweep, s.Request, s.Request+s.Sweep != "", s.Cluster
	for _, v := range s.Values {
		if err := c.Set(v.Key, v.Value, setting.Resumed, "resumed run, "+strings.TrimPrefix(v.Source, "resumed run, ")); err != nil {
			return fmt.Errorf("%s: %w", f.InResume(session.RunFile), err)
		}
	}
	return nil
}

// Folders are the folders of images that a training used, absolute; "" = none.
type Folders struct{ Train, Validation, Test string }

// FoldersOf reads which images the training in a folder used.
func FoldersOf(dir string) (Folders, error) {
	var s saved
	if err := (folder{session.At(kind, dir)}).Load(&s); err != nil {
		return Folders{}, err
	}
	values := map[string]any{}
	for _, v := range s.Values {
		values[v.Key] = v.Value
	}
	return FoldersIn(values, s.Base), nil
}

// FoldersIn takes the folders of images from settings, whose relative paths start
// at base.
func FoldersIn(values map[string]any, base string) Folders {
	of := func(key string) string {
		text, _ := values[key].(string)
		if text == "" {
			return ""
		}
		return setting.Absolute(base, text)
	}
	return Folders{of("data.train"), of("data.validation"), of("data.test")}
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
		return fail(errors.New("it is not a training checkpoint: it lacks the optimiser's and the random state. Give the training's folder, or start from its weights with --set weights=FILE"))
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
	p.resumeFile, p.resumeEpoch, p.trackedRun, p.requestID, p.sweep, p.addresses = r.File, r.Epoch, r.Tracked, r.request, r.Sweep, r.Cluster
	if r.Folder != "" {
		p.Folder, p.again = r.Folder, true
	}
	if r.Threads > 0 && p.Config.Get(keyThreads).Origin <= setting.Resumed {
		p.Threads = r.Threads // rounding depends on it
	}
	if note := p.rateNote(); note != "" {
		p.note("warning: %s", note)
	}
}

// rateNote is what to know of the learning rate where the checkpoint was trained
// with other batches; "" = nothing. What is wrong with the file the trainer says.
func (p *Plan) rateNote() string {
	if p.resumeFile == "" {
		return ""
	}
	file, err := checkpoint.Open(p.resumeFile)
	if err != nil {
		return ""
	}
	defer file.Close()
	m, err := file.Model()
	if err != nil {
		return ""
	}
	return settings.RateNote([]byte(m.Config), p.Settings)
}
