package dataset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"
)

// List lists an image folder that is learned from: every subfolder is a class, classes stand in code point
// order, and a class's images are all files below its folder with a known ending (IsImage), symbolic links
// followed, ordered by folder and then by name, as torchvision's ImageFolder has them. Hidden files and folders
// and those of systems (Hidden), which it takes for classes and images, are left out, and so are pipes and devices
// (Followed) and other endings; Folder.LeftOut tells of them. What a file holds is not looked at.
//
// Errors: the folder is missing or unreadable, has no subfolders, or has classes without images (each named).
func List(dir string) (*Folder, error) {
	f, err := Survey(dir)
	if err != nil {
		return nil, err
	}
	if empty := f.Empty(); len(empty) > 0 {
		noun := "class"
		if len(empty) > 1 {
			noun = "classes"
		}
		for i := range empty {
			empty[i] = fmt.Sprintf("%q", empty[i])
		}
		return nil, fmt.Errorf("image folder %s: no images in %s %s: add images (%s) or remove the folder%s",
			dir, noun, strings.Join(empty, ", "), strings.Join(Extensions, " "), f.LeftOut.behind("; left out: "))
	}
	return f, nil
}

// ListHeldOut is List for images to validate or test on: of a class too small to be divided there may be
// none, if there are any of another.
func ListHeldOut(dir string) (*Folder, error) {
	f, err := Survey(dir)
	if err != nil {
		return nil, err
	}
	if len(f.Files) == 0 {
		return nil, fmt.Errorf("image folder %s: no images in any of its %d class folders: add images (%s)%s",
			dir, len(f.Classes), strings.Join(Extensions, " "), f.LeftOut.behind("; left out: "))
	}
	return f, nil
}

// errEmpty is of a folder that has nothing at all in it.
var errEmpty = errors.New("it is empty")

// Missing reports whether an error of List, Survey or PackContext says that the
// images are not there, as where a shared folder is not mounted: another machine
// may have them. A folder that is there and holds something else is not missing.
func Missing(err error) bool {
	for _, e := range []error{errEmpty, fs.ErrNotExist, fs.ErrPermission, syscall.ENOTCONN, syscall.ESTALE, syscall.EHOSTDOWN, syscall.ENODEV, syscall.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Survey is List for somebody who looks and does not train: a class without images stands in it with none.
func Survey(dir string) (*Folder, error) {
	info, err := os.Stat(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("image folder %s does not exist: give a folder with one subfolder of images per class: %w", dir, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("image folder %s: %w", dir, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("image folder %s is not a folder: give a folder with one subfolder of images per class", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("image folder %s: %w", dir, err)
	}
	f := &Folder{Dir: dir}
	loose := 0
	for _, e := range entries {
		isDir, special := Followed(dir, e)
		switch {
		case Hidden(e.Name()):
			f.LeftOut.hide(e.Name(), isDir)
		case special:
			f.LeftOut.Special++
		case isDir && !utf8.ValidString(e.Name()):
			return nil, fmt.Errorf("image folder %s: the class folder %q has a name that is not UTF-8, which a model file cannot store: rename it (convmv -f latin1 -t utf8 --notest)", dir, e.Name())
		case isDir:
			f.Classes = append(f.Classes, e.Name())
		case IsImage(e.Name()):
			loose++
		}
	}
	if len(f.Classes) == 0 {
		if len(entries) == 0 {
			return nil, fmt.Errorf("image folder %s has no class folders: %w; put the images of each class into a subfolder with the class's name", dir, errEmpty)
		}
		if loose > 0 {
			return nil, fmt.Errorf("image folder %s has no class folders; %d images are directly in it: put the images of each class into a subfolder with the class's name", dir, loose)
		}
		return nil, fmt.Errorf("image folder %s has no class folders: put the images of each class into a subfolder with the class's name", dir)
	}
	slices.Sort(f.Classes)
	for class, name := range f.Classes {
		w := walker{root: dir, class: class, left: &f.LeftOut}
		if err := w.walk(name, nil); err != nil {
			return nil, fmt.Errorf("image folder %s: class %q: %w", dir, name, err)
		}
		w.sort()
		f.Files = append(f.Files, w.files...)
	}
	f.LeftOut.Loose = loose
	return f, nil
}

// Followed reports whether an entry of a folder is, symbolic links followed, a folder, or special: neither
// folder nor regular file (a pipe, a socket, a device), which may block for good whoever opens it. A link to
// nowhere is neither.
func Followed(dir string, e fs.DirEntry) (isDir, special bool) {
	mode := e.Type()
	if mode&fs.ModeSymlink != 0 {
		target, err := os.Stat(filepath.Join(dir, e.Name()))
		if err != nil {
			return false, false
		}
		mode = target.Mode()
	}
	return mode.IsDir(), !mode.IsDir() && !mode.IsRegular()
}

// walker collects the images below one class folder.
type walker struct {
	root  string
	class int
	files []File
	left  *LeftOut
}

// walk descends into rel. above are the folders on the way down: a symbolic link that leads back to one of
// them is not followed, where Python would go round until the system stops it.
func (w *walker) walk(rel string, above []fs.FileInfo) error {
	abs := filepath.Join(w.root, rel)
	here, err := os.Stat(abs)
	if err != nil {
		return err
	}
	for _, a := range above {
		if os.SameFile(a, here) {
			return nil
		}
	}
	above = append(slices.Clip(above), here)
	entries, err := os.ReadDir(abs)
	if err != nil {
		return err
	}
	for _, e := range entries {
		child := filepath.Join(rel, e.Name())
		isDir, special := Followed(abs, e)
		switch {
		case Hidden(e.Name()):
			w.left.hide(child, isDir)
		case special:
			w.left.Special++
		case isDir:
			if err := w.walk(child, above); err != nil {
				return err
			}
		case IsImage(e.Name()):
			w.files = append(w.files, File{Path: child, Class: w.class})
		default:
			w.left.other(e.Name())
		}
	}
	return nil
}

// sort orders by folder first, then by name: sorted(os.walk(...)) with sorted names inside.
func (w *walker) sort() {
	slices.SortFunc(w.files, func(a, b File) int {
		da, na := filepath.Split(a.Path)
		db, nb := filepath.Split(b.Path)
		// os.walk's roots carry no trailing separator; with one, "a-b/" would sort before "a/".
		if c := strings.Compare(strings.TrimSuffix(da, "/"), strings.TrimSuffix(db, "/")); c != 0 {
			return c
		}
		return strings.Compare(na, nb)
	})
}
