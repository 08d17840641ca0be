package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/nearest"
)

// opened is what became of reading a file that a person named: where it is not
// there the error names the nearest file that is, and the exit code says so.
// Another error, or none, stays as it is.
func (e *Env) opened(path string, err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := e.relative(e.path(path)) + ": no such file"
	dir, base := filepath.Split(e.path(path))
	if near, there := nearestFile(dir, base); near != "" {
		return notFound("%s; did you mean %s?", text, e.relative(filepath.Join(dir, near)))
	} else if !there {
		return notFound("%s: there is no folder %s", text, e.relative(filepath.Clean(dir)))
	}
	return notFound("%s", text)
}

// nearestFile is the file of a folder that a name most likely stands for: one of
// about its name, else one of its ending. there reports whether the folder exists.
func nearestFile(dir, base string) (name string, there bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", !errors.Is(err, fs.ErrNotExist)
	}
	var same, all []string
	for _, f := range entries {
		if f.IsDir() || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		all = append(all, f.Name())
		if ext := filepath.Ext(base); ext != "" && strings.EqualFold(filepath.Ext(f.Name()), ext) {
			same = append(same, f.Name())
		}
	}
	if close, ok := nearest.Close(base, all); ok {
		return close, true
	}
	return nearest.Word(base, same), true
}
