package main

import (
	"fmt"
	"os"
	"path/filepath"

	"atelier/worker/confine"
)

// Folders below the data folder that trainers get to see.
const (
	checkpointsFolder = "checkpoints"
	fetchedFolder     = "fetched"
	tempFolder        = "tmp"
)

// confinement is what trainers of this worker may: its checkpoints and packed
// images, copies of checkpoints to read, temporary files; nothing else of its data
// folder.
func (m *Main) confinement() (*confine.Confinement, error) {
	c := m.Config
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	checkpoints, fetched := m.checkpoints(), filepath.Join(c.Data, fetchedFolder)
	for _, dir := range []string{checkpoints, fetched} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("folder for checkpoints: %w", err)
		}
	}
	cf, err := confine.New(confine.Config{Mode: c.Confine, Launcher: []string{self, confine.Verb},
		Write: []string{checkpoints}, Cache: c.Cache, Read: []string{fetched}, Private: []string{c.Data}, Roots: c.DataRoots,
		Temp: filepath.Join(c.Data, tempFolder), FileBytes: uint64(c.TrainerFileGiB) << 30, User: c.TrainerUser})
	if err != nil {
		return nil, err
	}
	roots := any("any folder that a sweep names")
	if len(c.DataRoots) > 0 {
		roots = c.DataRoots
	}
	m.log.Info("trainers are confined", "in_force", cf.String(), "data", roots)
	if cf != nil && !cf.Folders() {
		m.log.Warn("this kernel has no Landlock: trainers can read and write what this worker can; --trainer-user NAME gives them less, --confine require refuses to start here")
	}
	return cf, nil
}

// checkpoints is the folder of checkpoints: the shared one where there is one.
func (m *Main) checkpoints() string {
	if m.Config.Shared != "" {
		return m.Config.Shared
	}
	return filepath.Join(m.Config.Data, checkpointsFolder)
}
