// Package layout looks at a folder and reports how images lie in it: split into
// train/ and validation/, one folder per class, or neither, and then why. It
// searches a working folder for such folders, and makes class folders ready for
// a training by tuner/data/split. It reads names, never images, and writes
// nothing but that split.
package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/dataset"
)

// Kind is how images lie in a folder.
type Kind int

// The kinds. Other is a folder that nothing can be trained on as it is.
const (
	Other   Kind = iota
	Split        // train/ and validation/, perhaps test/, each with one folder per class
	Classes      // one folder per class
)

// Layout is a folder that was looked at.
type Layout struct {
	Dir  string // as it was given; of a Split whose train/ was given, the folder above
	Kind Kind
	// The folders of a Split; Test is "" where there is none.
	Train, Validation, Test string
	Classes                 []string // names, in order; of a Split those of train/
	Images                  int      // of all parts
	Why                     string   // of Other: what the folder is, and what to do
}

// validations are the names that folders of validation images have.
var validations = []string{"validation", "val", "valid"}

// Look reports how images lie in a folder. An error is of a folder that cannot be
// read.
func Look(dir string) (Layout, error) {
	s := &scan{left: 1 << 30}
	l, err := s.look(dir)
	if err != nil {
		return l, err
	}
	// A part of a split was given: train/ or one of the others.
	if up := filepath.Dir(filepath.Clean(dir)); l.Kind != Split && slices.Contains(append([]string{"train", "test"}, validations...), filepath.Base(dir)) {
		if whole, err := s.look(up); err == nil && whole.Kind == Split {
			return whole, nil
		}
	}
	return l, nil
}

// scan counts what it reads: a search must not read a disk.
type scan struct{ left int }

var errLimit = errors.New("too many files")

func (s *scan) read(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if s.left -= len(entries) + 1; err == nil && s.left < 0 {
		err = errLimit
	}
	return entries, err
}

func (s *scan) look(dir string) (Layout, error) {
	l := Layout{Dir: dir}
	folders, loose, err := s.folders(dir)
	if err != nil {
		return l, err
	}
	has := func(name string) bool { return slices.Contains(folders, name) }
	validation := ""
	for _, v := range validations {
		if validation == "" && has(v) {
			validation = v
		}
	}
	switch {
	case has("train") && validation != "":
		l.Kind, l.Train, l.Validation = Split, filepath.Join(dir, "train"), filepath.Join(dir, validation)
		parts := []string{l.Train, l.Validation}
		if has("test") {
			l.Test = filepath.Join(dir, "test")
			parts = append(parts, l.Test)
		}
		for i, part := range parts {
			classes, n, _, err := s.classes(part)
			if err != nil {
				return l, err
			}
			l.Images += n
			if i == 0 {
				l.Classes = classes
			}
		}
		return l, nil
	case has("train") && !s.direct(filepath.Join(dir, "train")):
		l.Why = fmt.Sprintf("%s has train/ and no validation/: add one, or give the folder with all images, one folder per class", dir)
		return l, nil
	}
	classes, n, deep, err := s.classes(dir)
	if err != nil {
		return l, err
	}
	l.Classes, l.Images = classes, n
	switch {
	case n == 0 && loose > 0:
		l.Why = fmt.Sprintf("%s has no class folders, and images in it (%d): put those of each class into a folder with the class's name", dir, loose)
	case n == 0:
		l.Why = fmt.Sprintf("%s has no folders with images in it: give a folder with one folder of images per class", dir)
	case deep != "":
		l.Why = fmt.Sprintf("the images of %s lie deeper than one folder per class, such as in %s: give the folder whose folders are the classes", dir, deep)
	default:
		l.Kind = Classes
	}
	return l, nil
}

// folders lists the folders in one that a person made, links followed, and
// counts the images beside them.
func (s *scan) folders(dir string) (names []string, loose int, err error) {
	entries, err := s.read(dir)
	for _, e := range entries {
		folder, special := dataset.Followed(dir, e)
		switch {
		case dataset.Hidden(e.Name()), special:
		case folder:
			names = append(names, e.Name())
		case dataset.IsImage(e.Name()):
			loose++
		}
	}
	return names, loose, err
}

// direct reports whether images lie in a folder itself.
func (s *scan) direct(dir string) bool {
	_, loose, err := s.folders(dir)
	return err == nil && loose > 0
}

// classes are the folders in one, with the number of images below them. deep is a
// folder without images of its own that has some further down: what is above it
// is hardly a class.
func (s *scan) classes(dir string) (names []string, images int, deep string, err error) {
	names, _, err = s.folders(dir)
	if err != nil {
		return nil, 0, "", err
	}
	for _, name := range names {
		own, below, err := s.count(filepath.Join(dir, name), 0)
		if err != nil {
			return nil, 0, "", err
		}
		images += own + below
		if own == 0 && below > 0 && deep == "" {
			deep = filepath.Join(dir, name)
		}
	}
	return names, images, deep, nil
}

// deepest is how far below a class images are counted; links may lead back up.
const deepest = 8

// count counts the images in a folder, and in those below.
func (s *scan) count(dir string, depth int) (own, below int, err error) {
	names, own, err := s.folders(dir)
	if err != nil || depth == deepest {
		return own, 0, err
	}
	for _, name := range names {
		n, m, err := s.count(filepath.Join(dir, name), depth+1)
		if err != nil {
			return own, below, err
		}
		below += n + m
	}
	return own, below, nil
}

// Describe is a layout in a few words: "5 classes, 236 images".
func (l Layout) Describe() string {
	return counted(len(l.Classes), "class", "classes") + ", " + counted(l.Images, "image", "images")
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + more
}

// thousands is a number with its thousands set apart.
func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// other reports whether a folder is, by what lies in it, somebody's results or
// data of a program, where images are charts.
func other(entries []fs.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		switch e.Name() {
		case "training_history.json", "tuning_results.json", "inference_metadata.jsonl", "quarantine.jsonl", "node.json", "meta.yaml", "run.json":
			return true
		}
		return strings.HasSuffix(e.Name(), ".pth")
	})
}
