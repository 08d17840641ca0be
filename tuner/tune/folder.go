package tune

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/files"
	"atelier/common/setting"
	"atelier/common/trial"
	"atelier/tuner/session"
	"atelier/tuner/train"
	"atelier/tuner/tune/report"
)

const (
	specFile    = "spec.yaml"
	clusterDir  = "cluster"
	dataDir     = "c1" // in it: the coordinator's
	fetchedFile = "fetched.pth"

	statusRunning = "running"
)

// saved is resume/run.json: what it takes to go on with a tuning.
type saved struct {
	session.Head
	RequestID string         `json:"request_id"`
	Sweep     string         `json:"sweep"`     // "" until the cluster has it
	Addresses string         `json:"addresses"` // of the cluster; "" = one of our own on this machine
	Status    string         `json:"status"`    // running, or how the sweep ended once the report is whole
	Values    map[string]any `json:"values"`    // keys that say what is done with the results

	spec []byte
	dir  string
}

// kept are the keys that a tuning is resumed; what it searches is in the
// spec.
func kept(key string) bool {
	return !strings.HasPrefix(key, trainingPrefix) && !strings.HasPrefix(key, "quick.") && !strings.HasPrefix(key, "subset.") && key != KeyBase
}

var kind = &session.Kind{Noun: "tuning", Results: append(report.Files(), report.TrialsDir),
	Keeps: func(name string) bool {
		return slices.Contains([]string{specFile, clusterDir, subsetName, fetchedFile}, name)
	},
	State: func(f *session.Folder) session.State {
		switch s, err := (folder{f}).saved(); {
		case err != nil || s.Status == "":
			return session.State{Text: "a tuning already"}
		case s.Status == statusRunning:
			return session.State{Text: "a tuning that has not ended", Resumable: true, GoesOn: s.Sweep != ""}
		default:
			return session.State{Text: fmt.Sprintf("a tuning already (%s)", s.Status)}
		}
	},
}

// folder is a tuning's.
type folder struct{ *session.Folder }

// save writes run.json and the spec.
func (f folder) save(s *saved) error {
	if err := files.Write(f.InResume(specFile), s.spec, 0o644); err != nil {
		return err
	}
	return f.Save(s)
}

// saved reads both.
func (f folder) saved() (*saved, error) {
	s := &saved{dir: f.Dir}
	err := f.Load(s)
	if err == nil {
		err = s.check()
	}
	if err == nil {
		s.spec, err = os.ReadFile(f.InResume(specFile))
	}
	return s, err
}

// check refuses a record without its request id: the sweep could be made a second time.
func (s *saved) check() error {
	if len(s.RequestID) < 16 {
		return fmt.Errorf("%s: its request id is missing", filepath.Join(s.dir, session.ResumeDir, session.RunFile))
	}
	return nil
}

// Resumption is a tuning that is resumed.
type Resumption struct {
	Folder    string
	Sweep     string
	Addresses string // of the cluster it runs on; "" = this machine
	Base      string
	saved     *saved
	trials    int64 // wanted in all; 0 = as many as it has
}

// Resume reads what an earlier session left in a folder and sets the keys it
// was run with. Without a folder it is the newest tuning below base that has
// not ended. With trials, the tuning gets so many in all, also one that has
// ended.
func Resume(dir, base string, trials int64, c *Config) (*Resumption, error) {
	if dir == "" {
		var err error
		if dir, err = newest(setting.Absolute(base, c.String(keyFolder))); err != nil {
			return nil, err
		}
	}
	f := folder{session.At(kind, session.DirOf(dir))}
	s, err := f.saved()
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	if s.Status != statusRunning {
		if s.Status == trial.SweepCancelled.String() {
			return nil, fmt.Errorf("--resume: the tuning in %s was cancelled: it cannot continue; its report is there, --overwrite makes a new one", f.Dir)
		}
		if trials == 0 {
			return nil, fmt.Errorf("--resume: the tuning in %s has ended (%s): its report is there; --trials N, more than it had, continues it, --overwrite makes a new one", f.Dir, s.Status)
		}
		if _, err := os.Stat(f.InResume(clusterDir, dataDir)); s.Addresses == "" && err != nil {
			return nil, fmt.Errorf("--resume: the data of the tuning in %s were removed when it ended (local.keep: false): it cannot continue; --overwrite makes a new one", f.Dir)
		}
	}
	for key, v := range s.Values {
		if err := c.Set(key, v, setting.Resumed, "resumed tuning"); err != nil {
			return nil, fmt.Errorf("--resume: %s: %w", f.Dir, err)
		}
	}
	if trials > 0 {
		if err := c.Set(KeyTrials, trials, setting.Flag, "--trials"); err != nil {
			return nil, err
		}
	}
	return &Resumption{Folder: f.Dir, Sweep: s.Sweep, Addresses: s.Addresses, Base: s.Base, saved: s, trials: trials}, nil
}

// FoldersOf reads which images the tuning in a folder used.
func FoldersOf(dir string) (train.Folders, error) {
	var s saved
	if err := (folder{session.At(kind, dir)}).Load(&s); err != nil {
		return train.Folders{}, err
	}
	return train.FoldersIn(s.Values, s.Base), nil
}

// newest finds the tuning below a folder that was begun last and has not ended.
func newest(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(escape(root), "*", "*", session.ResumeDir, session.RunFile))
	if err != nil {
		return "", err
	}
	best, when := "", int64(0)
	for _, path := range found {
		dir := filepath.Dir(filepath.Dir(path))
		s, err := folder{session.At(kind, dir)}.saved()
		if err != nil || s.Status != statusRunning {
			continue
		}
		if st, err := os.Stat(path); err == nil && st.ModTime().UnixNano() > when {
			best, when = dir, st.ModTime().UnixNano()
		}
	}
	if best == "" {
		return "", fmt.Errorf("--resume: no unfinished tuning below %s; name its folder: --resume DIR", root)
	}
	return best, nil
}

// escape makes a folder's name match itself in a pattern.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// Plan is a resumed tuning's.
func (r *Resumption) Plan(c *Config) *Plan {
	return &Plan{Config: c, Model: c.String(KeyModel), Method: c.String(KeyMethod), Folder: r.Folder, base: r.Base, again: r.saved, trials: r.trials}
}
