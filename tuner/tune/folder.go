package tune

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/setting"
	"atelier/tuner/aside"
	"atelier/tuner/tune/report"
)

const (
	resumeDir  = "resume"
	runFile    = "run.json"
	specFile   = "spec.yaml"
	lockFile   = ".lock"
	clusterDir = "cluster"
	dataDir    = "c1" // in it: the coordinator's

	savedFormat = 1
)

// saved is resume/run.json: what it takes to go on with a tuning.
type saved struct {
	Format    int            `json:"format"`
	Base      string         `json:"base_dir"`
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

// folder is a tuning's folder while this process holds it.
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

// hold makes a folder, if need be, and keeps others from tuning into it.
func hold(dir string) (*folder, error) {
	f := &folder{dir: dir}
	if err := os.MkdirAll(f.resume(), 0o755); err != nil {
		return nil, fmt.Errorf("folder for the results: %w", err)
	}
	var err error
	f.lock, err = files.Lock(f.resume(lockFile), fmt.Errorf("another tuning is writing to %s: wait for it, or name another folder with --out", dir))
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *folder) release() { f.lock.Close() }

// ExistsError refuses to tune into a folder that holds another tuning.
type ExistsError struct {
	Dir    string
	Status string // of the tuning in it, "" = not known
}

func (e *ExistsError) Error() string {
	what, more := "a tuning already", ""
	switch e.Status {
	case "":
	case statusRunning:
		what, more = "a tuning that has not ended", fmt.Sprintf("--resume %s goes on with it, ", e.Dir)
	default:
		what = fmt.Sprintf("a tuning already (%s)", e.Status)
	}
	return fmt.Sprintf("%s holds %s: %s--overwrite replaces it, --out DIR puts this one elsewhere", e.Dir, what, more)
}

const statusRunning = "running"

// results lists by name what a tuning left that is worth having.
func (f *folder) results() []string {
	return f.there(append(report.Files(), report.TrialsDir, filepath.Join(resumeDir, runFile)))
}

func (f *folder) there(names []string) (found []string) {
	for _, name := range names {
		if _, err := os.Stat(f.path(name)); err == nil {
			found = append(found, name)
		}
	}
	return found
}

// earlier is the tuning that --overwrite replaces: it stays until a trial of the
// new one has a value, which settle says.
func (f *folder) earlier() aside.Folder {
	return aside.Folder{Path: f.dir, Own: func() ([]string, error) {
		return append(f.results(), f.there([]string{filepath.Join(resumeDir, clusterDir), filepath.Join(resumeDir, subsetName), filepath.Join(resumeDir, specFile)})...), nil
	}, Stands: func() (bool, error) { return false, nil }}
}

// settle removes the earlier tuning once a trial of the new one has a value.
func (f *folder) settle(s *v1.Sweep) error {
	if s.GetBest() == nil || !f.earlier().Held() {
		return nil
	}
	return f.earlier().Drop()
}

// begin prepares the folder for a new tuning: what an earlier one left is set
// aside by its names.
func (f *folder) begin(overwrite bool) error {
	goesOn := false // a tuning that replaces another and has no value yet may be resumed
	if s, err := readSaved(f.dir); err == nil {
		goesOn = s.Status == statusRunning && s.Sweep != ""
	}
	if overwrite || !goesOn {
		if err := f.earlier().Recover(); err != nil {
			return err
		}
	}
	found := f.results()
	if len(found) > 0 && !overwrite {
		e := &ExistsError{Dir: f.dir}
		if s, err := readSaved(f.dir); err == nil {
			e.Status = s.Status
		}
		return e
	}
	if len(found) > 0 {
		if err := f.earlier().Set(); err != nil {
			return fmt.Errorf("overwrite: %w", err)
		}
	}
	for _, name := range []string{clusterDir, subsetName, specFile} {
		if err := os.RemoveAll(f.resume(name)); err != nil {
			return err
		}
	}
	return nil
}

// save writes run.json and the spec, durably: what is asked of the cluster next
// must be known after a power cut.
func (f *folder) save(s *saved) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := files.Write(f.resume(specFile), s.spec, 0o644); err != nil {
		return err
	}
	return files.Write(f.resume(runFile), append(b, '\n'), 0o644)
}

func readSaved(dir string) (*saved, error) {
	b, err := os.ReadFile(filepath.Join(dir, resumeDir, runFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no tuning (no %s/%s in it)", dir, resumeDir, runFile)
	}
	if err != nil {
		return nil, err
	}
	s, err := decodeSaved(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, resumeDir, runFile), err)
	}
	s.dir = dir
	s.spec, err = os.ReadFile(filepath.Join(dir, resumeDir, specFile))
	return s, err
}

func decodeSaved(b []byte) (*saved, error) {
	var s saved
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	if s.Format != savedFormat {
		return nil, fmt.Errorf("it is of format %d, this program reads %d", s.Format, savedFormat)
	}
	if len(s.RequestID) < 16 {
		return nil, errors.New("its request id is missing")
	}
	return &s, nil
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
		if dir, err = newest(absolute(base, c.String(keyFolder))); err != nil {
			return nil, err
		}
	}
	if filepath.Base(dir) == resumeDir {
		dir = filepath.Dir(dir)
	}
	s, err := readSaved(dir)
	if err != nil {
		return nil, fmt.Errorf("--resume: %w", err)
	}
	if s.Status != statusRunning {
		if trials == 0 {
			return nil, fmt.Errorf("--resume: the tuning in %s has ended (%s): its report is there; --trials N, more than it had, goes on with it, --overwrite makes a new one", dir, s.Status)
		}
		if _, err := os.Stat(filepath.Join(dir, resumeDir, clusterDir, dataDir)); s.Addresses == "" && err != nil {
			return nil, fmt.Errorf("--resume: the data of the tuning in %s were removed when it ended (local.keep: false): it cannot go on; --overwrite makes a new one", dir)
		}
	}
	for key, v := range s.Values {
		if err := c.Set(key, v, setting.Resumed, "resumed tuning"); err != nil {
			return nil, fmt.Errorf("--resume: %s: %w", dir, err)
		}
	}
	if trials > 0 {
		if err := c.Set(KeyTrials, trials, setting.Flag, "--trials"); err != nil {
			return nil, err
		}
	}
	return &Resumption{Folder: dir, Sweep: s.Sweep, Addresses: s.Addresses, Base: s.Base, saved: s, trials: trials}, nil
}

// newest finds the tuning below a folder that was begun last and has not ended.
func newest(root string) (string, error) {
	found, err := filepath.Glob(filepath.Join(escape(root), "*", "*", resumeDir, runFile))
	if err != nil {
		return "", err
	}
	best, when := "", int64(0)
	for _, path := range found {
		dir := filepath.Dir(filepath.Dir(path))
		s, err := readSaved(dir)
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

func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// Plan is a resumed tuning's.
func (r *Resumption) Plan(c *Config) *Plan {
	return &Plan{Config: c, Model: c.String(KeyModel), Method: c.String(KeyMethod), Folder: r.Folder, base: r.Base, again: r.saved, trials: r.trials}
}
