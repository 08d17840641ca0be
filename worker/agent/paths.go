package agent

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"atelier/common/setting"
	"atelier/common/trainerproto"
	"atelier/worker/confine"
)

// pathSettings are the settings of Atelier's own trainer that are paths of what it
// reads: of a training, and of a task of inference.
var pathSettings = []string{
	"training.data.train", "training.data.validation", "training.data.test", "training.weights", "training.pretrained",
	modelSetting, "training.settings.paths.image_path", "training.settings.paths.image_dir",
}

// An inference draws the curve of the training that its model is of, from the
// file beside it.
const (
	modelSetting = "training.settings.model.checkpoint"
	historyFile  = "training_history.json"
)

const (
	mostTexts = 1000 // settings of a run that are looked at for paths
	mostDepth = 16
	longest   = 4096 // bytes of a path, as Linux has it
)

// namedPaths are the paths that a job's settings name: those of pathSettings, and
// each other text, since a trainer of somebody else has settings of its own names.
// What is no path does not exist and is passed over later.
func namedPaths(job *trainerproto.Job) []confine.Named {
	var list []confine.Named
	var walk func(key string, v any, depth int)
	walk = func(key string, v any, depth int) {
		if len(list) >= mostTexts || depth > mostDepth {
			return
		}
		switch v := v.(type) {
		case string:
			if v == "" || len(v) > longest || strings.ContainsRune(v, 0) {
				return
			}
			path := setting.Absolute(job.BaseDir, v)
			list = append(list, confine.Named{Key: key, Path: path, Sure: slices.Contains(pathSettings, key)})
			if key == modelSetting {
				list = append(list, confine.Named{Key: key, Path: filepath.Join(filepath.Dir(path), historyFile)})
			}
		case []any:
			for _, e := range v {
				walk(key, e, depth+1)
			}
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(key+"."+k, v[k], depth+1)
			}
		}
	}
	for _, doc := range []json.RawMessage{job.Training, job.Params} {
		var v any
		if json.Unmarshal(doc, &v) == nil { // the trainer says what is wrong with them
			walk("training", v, 0)
		}
	}
	return slices.DeleteFunc(list, func(n confine.Named) bool { return !filepath.IsAbs(n.Path) })
}

// opened remembers what was opened to the latest runs of each trainer, so that
// one that stands by may read what the next run of the same sweep names.
type opened struct {
	mu    sync.Mutex
	paths map[string][]string // by trainer; latest first
}

// mostOpened paths are opened to a trainer that stands by.
const mostOpened = 16

func (o *opened) note(trainer string, paths []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.paths == nil {
		o.paths = map[string][]string{}
	}
	old := slices.DeleteFunc(slices.Clone(o.paths[trainer]), func(p string) bool { return slices.Contains(paths, p) })
	all := append(slices.Clone(paths), old...)
	o.paths[trainer] = all[:min(len(all), max(mostOpened, len(paths)))]
}

func (o *opened) of(trainer string) []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.paths[trainer])
}
