package dataset

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Extensions are the file name endings, in any case, that count as images: those of the formats that Decode
// reads. torchvision's ImageFolder has no .jfif, .jpe, .gif, .dib and .pnm.
var Extensions = []string{".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"}

// IsImage reports whether a file counts as an image: by the ending of its name, without opening it.
func IsImage(name string) bool {
	return slices.Contains(Extensions, strings.ToLower(filepath.Ext(name)))
}

// systems are folders that an operating system or a tool leaves in others.
var systems = []string{"__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__pycache__"}

// Hidden reports whether a file or folder is, by its name, no person's image or class: hidden ones (.git,
// .ipynb_checkpoints, ._photo.jpg) and those of systems.
func Hidden(name string) bool {
	return strings.HasPrefix(name, ".") || slices.Contains(systems, name)
}

// LeftOut is what lies in an image folder and is neither a class nor an image of one.
type LeftOut struct {
	Folders []string       // hidden ones and those of systems, relative; not looked into
	Hidden  int            // hidden files
	Endings map[string]int // files by an ending that no image has; "" is none
	Loose   int            // images beside the class folders
	Special int            // pipes, sockets and devices; never opened
}

func (l *LeftOut) hide(path string, isDir bool) {
	if isDir {
		l.Folders = append(l.Folders, path)
	} else {
		l.Hidden++
	}
}

func (l *LeftOut) other(name string) {
	if l.Endings == nil {
		l.Endings = map[string]int{}
	}
	l.Endings[strings.ToLower(filepath.Ext(name))]++
}

// most is how many names a line shows.
const most = 5

// String tells it in a line; "" where nothing is left out.
func (l LeftOut) String() string {
	var parts []string
	add := func(n int, what, more string) {
		if n == 0 {
			return
		}
		if n != 1 {
			what += "s"
		}
		parts = append(parts, fmt.Sprintf("%d %s%s", n, what, more))
	}
	names := l.Folders[:min(len(l.Folders), most)]
	more := " (" + strings.Join(names, ", ")
	if len(l.Folders) > most {
		more += ", ..."
	}
	add(len(l.Folders), "hidden or system folder", more+")")
	add(l.Hidden, "hidden file", "")
	others := 0
	for _, n := range l.Endings {
		others += n
	}
	endings := slices.SortedFunc(maps.Keys(l.Endings), func(a, b string) int {
		return cmp.Or(cmp.Compare(l.Endings[b], l.Endings[a]), strings.Compare(a, b))
	})
	for i, x := range endings {
		endings[i] = fmt.Sprintf("%d %s", l.Endings[x], cmp.Or(x, "without any"))
	}
	if len(endings) > most {
		endings = append(endings[:most], "...")
	}
	add(others, "file", " without an image extension ("+strings.Join(endings, ", ")+")")
	add(l.Loose, "image", " beside the class folders")
	add(l.Special, "special file", " (pipes, sockets or devices)")
	return strings.Join(parts, ", ")
}

// behind is it with something before, or nothing.
func (l LeftOut) behind(before string) string {
	if text := l.String(); text != "" {
		return before + text
	}
	return ""
}

// Empty names the classes without images.
func (f *Folder) Empty() (names []string) {
	for class, n := range f.Counts() {
		if n == 0 {
			names = append(names, f.Classes[class])
		}
	}
	return names
}

// Notes are what a person who trains or evaluates on a folder ought to know of its listing.
func (f *Folder) Notes() (notes []string) {
	if len(f.Classes) == 1 {
		notes = append(notes, fmt.Sprintf("%s has one class (%s): a classifier with one class is always right; give one folder per class", f.Dir, f.Classes[0]))
	}
	if empty := f.Empty(); len(empty) > 0 {
		notes = append(notes, fmt.Sprintf("%s has no images of %s: its accuracy cannot be measured", f.Dir, strings.Join(empty[:min(len(empty), most)], ", ")))
	}
	if text := f.LeftOut.String(); text != "" {
		notes = append(notes, f.Dir+": left out: "+text)
	}
	return notes
}
