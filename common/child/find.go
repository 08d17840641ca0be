package child

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Find is the file of one of this project's programs: the one that was said, if
// one was, else the one beside this program, else on the PATH. beside is where it
// is looked for first.
func Find(name, said string) (path, beside string, err error) {
	if said == "" {
		said = name
		if self, err := os.Executable(); err == nil {
			beside = filepath.Join(filepath.Dir(self), name)
			if path, err := exec.LookPath(beside); err == nil {
				return path, beside, nil
			}
		}
	}
	if path, err = exec.LookPath(said); err == nil {
		path, err = filepath.Abs(path)
	}
	return path, beside, err
}
