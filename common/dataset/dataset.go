// Package dataset turns a folder of images into something a training loop can read at memory speed.
//
// List walks an image folder as torchvision's ImageFolder does, without what is hidden. Pack decodes and resizes every
// image once into one packed file of uint8 RGB squares, kept in a cache. OpenPack maps that file into
// memory; any number of processes share its pages.
//
// The package refuses to guess: a class without usable images is an error, a damaged image is named,
// skipped and counted, a packed file that does not verify is not opened. It knows nothing of augmentation,
// of tensors or of the network.
package dataset

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// File is one image of a Folder.
type File struct {
	// Path is relative to Folder.Dir, with the class folder first.
	Path string
	// Class is the index into Folder.Classes.
	Class int
}

// Folder is a listed image folder: one subfolder a class.
type Folder struct {
	// Dir is the folder as it was given to List.
	Dir string
	// Classes are the names of the subfolders in code point order; the position is the class index.
	Classes []string
	// Files are the images, class by class, in the order ImageFolder has them.
	Files []File
	// LeftOut is what else lies in the folder.
	LeftOut LeftOut
}

// Counts returns the number of files of each class.
func (f *Folder) Counts() []int {
	counts := make([]int, len(f.Classes))
	for _, file := range f.Files {
		counts[file.Class]++
	}
	return counts
}

// Digest tells by the names, classes and sizes of the files, not by when or where they were written, whether
// two listings are of one set of images. Hexadecimal.
func (f *Folder) Digest() string {
	h := sha256.New()
	for _, c := range f.Classes {
		fmt.Fprintf(h, "%q\n", c)
	}
	for _, file := range f.Files {
		size := int64(-1)
		if info, err := os.Stat(filepath.Join(f.Dir, file.Path)); err == nil {
			size = info.Size()
		}
		fmt.Fprintf(h, "%d %q %d\n", file.Class, filepath.ToSlash(file.Path), size)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// SameClasses reports, as an error that names the difference, whether two sets of class names disagree. The
// names say where each came from ("train folder", "checkpoint"). Order counts: the index is the label.
func SameClasses(aName string, a []string, bName string, b []string) error {
	if missing := without(a, b); len(missing) > 0 {
		return fmt.Errorf("classes differ: %s has %s, %s has not: use the same class folders in both (a class without validation images may have an empty folder)",
			aName, strings.Join(missing, ", "), bName)
	}
	if missing := without(b, a); len(missing) > 0 {
		return fmt.Errorf("classes differ: %s has %s, %s has not: use the same class folders in both",
			bName, strings.Join(missing, ", "), aName)
	}
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return fmt.Errorf("classes differ in order: %s has %s, %s has %s",
				aName, strings.Join(a, ", "), bName, strings.Join(b, ", "))
		}
	}
	if len(b) != len(a) {
		return fmt.Errorf("classes differ in number: %s has %d, %s has %d", aName, len(a), bName, len(b))
	}
	return nil
}

func without(a, b []string) []string {
	have := make(map[string]bool, len(b))
	for _, name := range b {
		have[name] = true
	}
	var out []string
	for _, name := range a {
		if !have[name] {
			out = append(out, fmt.Sprintf("%q", name))
		}
	}
	return out
}
