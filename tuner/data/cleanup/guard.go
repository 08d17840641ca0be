package cleanup

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/dataset"
)

// RefusedError is a folder that does not look like an image folder: moving files
// out of it would break something else.
type RefusedError struct{ Dir, Why string }

func (e *RefusedError) Error() string { return fmt.Sprintf("clean up %s: %s", e.Dir, e.Why) }

// marks are files and folders that only another use of a folder leaves there.
var marks = map[string]string{
	"node.json": "the data folder of a coordinator", "lock": "the data folder of a coordinator or worker", "wal-meta.db": "a raft log",
	"training_history.json": "results of a training", "run.json": "results of a training", Manifest: "a quarantine", "meta.yaml": "an MLflow store",
	".git": "a repository", ".hg": "a repository", ".svn": "a repository", "mlruns": "an MLflow store", "go.mod": "source code", "package.json": "source code", "pyproject.toml": "source code",
}

// markedEndings are of files that only another use leaves.
var markedEndings = map[string]string{".pth": "models", ".pt": "models", ".safetensors": "models", ".wal": "a raft log", ".pack": "packed images"}

// found are the files below a folder, relative, with slashes.
type found struct {
	images []string // by their ending, in class folders
	others []string // in class folders
	left   dataset.LeftOut
	mark   string // of another use; "" = none
	use    string
}

func walk(dir string) (*found, error) {
	f := &found{left: dataset.LeftOut{Endings: map[string]int{}}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		use := marks[d.Name()]
		if use == "" && !d.IsDir() {
			use = markedEndings[strings.ToLower(filepath.Ext(d.Name()))]
		}
		if use != "" && f.use == "" {
			f.mark, f.use = name, use
		}
		switch {
		case d.IsDir() && dataset.Hidden(d.Name()):
			f.left.Folders = append(f.left.Folders, name)
			return fs.SkipDir
		case d.IsDir() || !d.Type().IsRegular():
		case dataset.Hidden(d.Name()):
			f.left.Hidden++
		case !strings.Contains(name, "/"): // manifests lie beside the class folders
			if dataset.IsImage(name) {
				f.left.Loose++
			}
		case dataset.IsImage(name):
			f.images = append(f.images, name)
		default:
			f.others = append(f.others, name)
			f.left.Endings[strings.ToLower(filepath.Ext(name))]++
		}
		return nil
	})
	return f, err
}

// refuse tells by the names alone that a folder is no image folder.
func (f *found) refuse(dir string, force bool) error {
	total := len(f.images) + len(f.others)
	switch {
	case f.use != "":
		return &RefusedError{dir, fmt.Sprintf("it contains %s (%s), so it is not only a folder of images; give the folder with one subfolder of images per class", f.use, f.mark)}
	case total == 0:
		return fmt.Errorf("clean up %s: there are no files in subfolders; give a folder with one subfolder of images per class", dir)
	case len(f.images) == 0 && !force:
		return &RefusedError{dir, fmt.Sprintf("none of its %d files has an image extension, such as %s; give a folder with one subfolder of images per class", total, examples(f.others))}
	case tooMany(len(f.others), total) && !force:
		return f.few(dir, f.others, total)
	}
	return nil
}

// mostlyImages refuses a folder of which, once the files were read, too few are images.
func (r *Report) mostlyImages(f *found, force bool) error {
	none := slices.Clone(f.others)
	for _, g := range r.Go {
		if g.Reason == NotAnImage && !slices.Contains(f.others, g.Path) {
			none = append(none, g.Path)
		}
	}
	if total := len(f.images) + len(f.others); tooMany(len(none), total) && !force {
		return f.few(r.Dir, none, total)
	}
	return nil
}

// tooMany reports whether more than a third are none.
func tooMany(none, total int) bool { return 3*none > total }

func (f *found) few(dir string, none []string, total int) error {
	return &RefusedError{dir, fmt.Sprintf("%d of its %d files are not images, such as %s; is it an image folder? If so, give --force", len(none), total, examples(none))}
}

func examples(names []string) string {
	const shown = 5
	if len(names) > shown {
		return strings.Join(names[:shown], ", ") + ", ..."
	}
	return strings.Join(names, ", ")
}
