package synth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/files"
)

// manifestName stands beside train, validation and test, so no class folder ever contains it.
const manifestName = "synth.json"

// manifest says what a folder was drawn with. It is written before the first image and again, complete, after
// the last.
type manifest struct {
	Version    int      `json:"version"`
	Styles     []string `json:"styles"`
	Train      int      `json:"train"`
	Validation int      `json:"validation"`
	Test       int      `json:"test"`
	Size       int      `json:"size"`
	Seed       uint64   `json:"seed"`
	Difficulty float64  `json:"difficulty"`
	Complete   bool     `json:"complete"`
}

func manifestOf(o Options) manifest {
	return manifest{Version: Version, Styles: o.Styles, Train: o.Train, Validation: o.Validation, Test: o.Test,
		Size: o.Size, Seed: o.Seed, Difficulty: *o.Difficulty}
}

func (m manifest) same(o manifest) bool {
	return slices.Equal(m.Styles, o.Styles) && m.Version == o.Version && m.Train == o.Train && m.Validation == o.Validation &&
		m.Test == o.Test && m.Size == o.Size && m.Seed == o.Seed && m.Difficulty == o.Difficulty
}

func (m manifest) String() string {
	return fmt.Sprintf("version %d, seed %d, %d px, difficulty %g, %d/%d/%d images of %s",
		m.Version, m.Seed, m.Size, m.Difficulty, m.Train, m.Validation, m.Test, strings.Join(m.Styles, ", "))
}

func (m manifest) save(dir string) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return files.WriteUnsynced(filepath.Join(dir, manifestName), append(b, '\n'), 0o644)
}

// claim makes dir this data set's, or finds that it is, and reports whether it was complete.
func claim(dir string, m manifest) (complete bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestName))
	if err == nil {
		var old manifest
		if err := json.Unmarshal(b, &old); err != nil {
			return false, fmt.Errorf("%s is damaged (%w): delete the folder, or choose another", filepath.Join(dir, manifestName), err)
		}
		if !m.same(old) {
			return false, fmt.Errorf("%s has images drawn with other options (there: %v; asked: %v): choose another folder, or delete this one", dir, old, m)
		}
		if old.Complete {
			return true, nil
		}
		return false, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	full, err := occupied(dir)
	if err != nil {
		return false, err
	}
	if full {
		return false, fmt.Errorf("%s is not empty and was not drawn by this command: choose another folder, or empty it", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	return false, m.save(dir)
}
