//go:build libtorch

package infer

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"atelier/common/dataset"
	"atelier/common/filename"
	"atelier/common/nearest"
	"atelier/common/terminal"
	"atelier/worker/trainer/explain/chart"
)

const (
	maxFileBytes = 256 << 20
	maxPixels    = 100_000_000
)

// File is one image to look at.
type File struct {
	Path string // as opened
	Name string // relative to the folder that was listed, with slashes; as terminal.Line shows it
	True int    // class by its folder; -1 = unknown
}

// list finds the images below dir, in the order of their names. An image in a
// folder named as a class (the first below dir) is of that class. unknown are
// folders with images whose names are no classes; left tells what is neither
// image nor class, as in training.
func list(dir string, extensions, classes []string) (files []File, unknown []string, left dataset.LeftOut, err error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, left, fmt.Errorf("paths.image_dir (--image-dir): there is no %s%s", dir, nearby(dir))
	}
	if err != nil {
		return nil, nil, left, fmt.Errorf("paths.image_dir: %w", err)
	}
	if !info.IsDir() {
		return nil, nil, left, fmt.Errorf("paths.image_dir: %s is a file; for one image: --mode explain_single --image FILE", dir)
	}
	endings := map[string]bool{}
	for _, x := range extensions {
		endings[strings.ToLower(x)] = true
	}
	seen := map[string]int{}
	left.Endings = map[string]int{}
	var walk func(rel string, depth int) error
	walk = func(rel string, depth int) error {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			return fmt.Errorf("paths.image_dir: %w", err)
		}
		for _, e := range entries {
			name := filepath.Join(rel, e.Name())
			if e.Type()&fs.ModeSymlink != 0 {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					continue // a link to nowhere is not an image
				}
			}
			isDir, special := dataset.Followed(filepath.Join(dir, rel), e)
			switch {
			case special:
				left.Special++
			case dataset.Hidden(e.Name()) && isDir:
				left.Folders = append(left.Folders, name)
			case dataset.Hidden(e.Name()):
				left.Hidden++
			case isDir && depth < 32:
				if err := walk(name, depth+1); err != nil {
					return err
				}
			case isDir:
				return fmt.Errorf("paths.image_dir: %s is more than 32 folders deep; does a link lead back?", name)
			default:
				ext := strings.ToLower(filepath.Ext(name))
				seen[ext]++
				if !endings[ext] {
					left.Endings[ext]++
				} else {
					files = append(files, File{Path: filepath.Join(dir, name), Name: filepath.ToSlash(name), True: -1})
				}
			}
		}
		return nil
	}
	if err := walk("", 0); err != nil {
		return nil, nil, left, err
	}
	if len(files) == 0 {
		return nil, nil, left, fmt.Errorf("no images in %s: %s; processing.extensions are %s", dir, said(seen), strings.Join(extensions, " "))
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for i := range files {
		folder, _, below := strings.Cut(files[i].Name, "/")
		files[i].Name = terminal.Line(files[i].Name) // it goes into tables, which are UTF-8
		if !below {
			continue
		}
		files[i].True = slices.Index(classes, folder)
		folder = terminal.Line(folder)
		if files[i].True < 0 && !slices.Contains(unknown, folder) {
			unknown = append(unknown, folder)
		}
	}
	return files, unknown, left, nil
}

// said lists the extensions that were found instead.
func said(seen map[string]int) string {
	if len(seen) == 0 {
		return "it has no files"
	}
	var found []string
	for x, n := range seen {
		if x == "" {
			x = "without extension"
		}
		found = append(found, fmt.Sprintf("%d %s", n, x))
	}
	sort.Strings(found)
	return "it contains " + strings.Join(found[:min(8, len(found))], ", ")
}

// nearby tells what is beside a path that leads nowhere, and which of it may
// have been meant.
func nearby(path string) string {
	wanted := filepath.Base(path)
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err == nil {
			var names []string
			for _, e := range entries {
				if !strings.HasPrefix(e.Name(), ".") {
					names = append(names, e.Name())
				}
			}
			if len(names) == 0 {
				return fmt.Sprintf("; %s is empty", dir)
			}
			more := ""
			if len(names) > 8 {
				more = fmt.Sprintf(" and %d more", len(names)-8)
			}
			return fmt.Sprintf("; %s contains %s%s%s", dir, strings.Join(names[:min(8, len(names))], ", "), more, meant(wanted, names))
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		wanted = filepath.Base(dir)
	}
}

// meant asks whether the nearest of some names was meant; it asks nothing where
// none is near.
func meant(name string, names []string) string {
	if near, ok := nearest.Close(name, names); ok {
		return "; did you mean " + near + "?"
	}
	return ""
}

// loaded is an image ready for the model and for the eye.
type loaded struct {
	File
	pixels []byte      // size*size*3, as training saw its images
	shown  *image.RGBA // the same part at chart.Side; nil when no chart is wanted
	turned bool        // as its EXIF orientation says
	err    error
}

// load reads an image file. size is the model's.
func load(f File, size int, show bool) loaded {
	l := loaded{File: f}
	r, err := os.Open(f.Path)
	if err != nil {
		l.err = err
		return l
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxFileBytes+1))
	if err == nil && len(b) > maxFileBytes {
		err = fmt.Errorf("larger than %d MiB", maxFileBytes>>20)
	}
	if err != nil {
		l.err = err
		return l
	}
	l.turned = dataset.Turned(b)
	l.pixels, l.shown, l.err = prepare(b, size, show)
	return l
}

// prepare decodes an image's bytes.
func prepare(b []byte, size int, show bool) (pixels []byte, shown *image.RGBA, err error) {
	img, format, err := dataset.Decode(b, maxPixels)
	if err != nil {
		return nil, nil, err
	}
	pixels = make([]byte, size*size*3)
	dataset.Square(pixels, img, format, size, size, dataset.CenterCrop, dataset.Bilinear)
	if show {
		side := chart.Side
		rgb := make([]byte, side*side*3)
		dataset.Square(rgb, img, format, side, side, dataset.CenterCrop, dataset.Bilinear)
		shown = image.NewRGBA(image.Rect(0, 0, side, side))
		for i := range side * side {
			shown.Pix[4*i], shown.Pix[4*i+1], shown.Pix[4*i+2], shown.Pix[4*i+3] = rgb[3*i], rgb[3*i+1], rgb[3*i+2], 255
		}
	}
	return pixels, shown, nil
}

// batches decodes files on several goroutines, a batch ahead of whoever reads
// the channel. It is closed at the end or when ctx ends.
func batches(ctx context.Context, files []File, batch, size, workers int, show bool) <-chan []loaded {
	out := make(chan []loaded, 1)
	go func() {
		defer close(out)
		for from := 0; from < len(files); from += batch {
			part := files[from:min(from+batch, len(files))]
			done := make([]loaded, len(part))
			var next sync.Mutex
			at := 0
			var wg sync.WaitGroup
			for range min(workers, len(part)) {
				wg.Go(func() {
					for {
						next.Lock()
						i := at
						at++
						next.Unlock()
						if i >= len(part) || ctx.Err() != nil {
							return
						}
						done[i] = load(part[i], size, show)
					}
				})
			}
			wg.Wait()
			select {
			case out <- done:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// stem is a name for output files made of an input's: no folders, nothing a
// file system or a shell stumbles over.
func stem(name string) string {
	name = filepath.Base(filepath.FromSlash(name))
	name = strings.TrimSuffix(name, filepath.Ext(name))
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r > 127:
			return r
		}
		return '_'
	}, name)
	clean = strings.TrimLeft(clean, ".")
	if clean == "" {
		return "image"
	}
	return filename.Cut(clean, 80)
}
