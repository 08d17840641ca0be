package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Other says what a folder holds that Write would replace and that is no earlier
// report of this sweep; "" for nothing.
func Other(dir string, s *Sweep) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, ResultsFile))
	if err == nil {
		var r struct { // results are written, not read: some of their values have no way back
			Sweep string `json:"sweep"`
		}
		if json.Unmarshal(b, &r) != nil || r.Sweep == "" {
			return "a " + ResultsFile + " that belongs to no sweep", nil
		}
		if r.Sweep != s.ID {
			return "the results of sweep " + r.Sweep, nil
		}
		return "", nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	names := []string{SummaryFile, TrialsDir}
	for _, p := range charts {
		names = append(names, p.name)
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return fmt.Sprintf("%s, and no %s of this sweep", name, ResultsFile), nil
		}
	}
	return "", nil
}
