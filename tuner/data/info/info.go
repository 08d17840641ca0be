// Package info looks at image folders and packed sets for a person: how many
// images of what size and kind there are of each class and in each part of a
// split, how even the classes are, and what some of them look like. It reads
// headers, not pixels, and changes nothing; broken images are cleanup's to find.
package info

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"atelier/common/dataset"
)

// Kinds of what was looked at.
const (
	Folder = "folder" // one subfolder a class
	Split  = "split"  // train, validation and test, each with one subfolder a class
	Pack   = "pack"   // a packed set
)

// Parts of a split, in order, with the other names their folders go by.
var Parts = []string{"train", "validation", "test"}

var otherNames = map[string][]string{"validation": {"val", "valid"}}

// Spread is the least, the middle and the most of some figures; zeros where there are none.
type Spread struct {
	Min    int64 `json:"min"`
	Median int64 `json:"median"`
	Max    int64 `json:"max"`
}

// Class is what there is of one class.
type Class struct {
	Class  string         `json:"class"`
	Index  int            `json:"index"`  // the label in training
	Images int            `json:"images"` // in all parts
	Share  float64        `json:"share"`  // of all images, 0 to 1
	Parts  map[string]int `json:"parts"`  // images by part; empty where there are no parts
	Bytes  int64          `json:"bytes"`
	Width  Spread         `json:"width"`  // pixels
	Height Spread         `json:"height"` // pixels
	Format map[string]int `json:"formats"`
	files  []file
}

// Part is one part of a split.
type Part struct {
	Part   string  `json:"part"`
	Images int     `json:"images"`
	Share  float64 `json:"share"`
	Ratio  float64 `json:"ratio"` // largest class over smallest; 0 where a class has none
}

// Fault is a file that says of itself that it is no image.
type Fault struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// Balance tells how even the classes are.
type Balance struct {
	Largest  string  `json:"largest"`
	Smallest string  `json:"smallest"`
	Ratio    float64 `json:"ratio"` // images of the largest over those of the smallest; 0 where that has none
}

// Info is what a look found.
type Info struct {
	Path    string         `json:"path"`
	Kind    string         `json:"kind"`
	Images  int            `json:"images"`
	Bytes   int64          `json:"bytes"` // of the images' files; of the packed file
	Width   Spread         `json:"width"` // pixels
	Height  Spread         `json:"height"`
	File    Spread         `json:"file_bytes"`
	Formats map[string]int `json:"formats"`
	Balance Balance        `json:"balance"`
	Parts   []Part         `json:"parts"`
	Classes []Class        `json:"classes"`
	Faults  []Fault        `json:"faults"` // files that are no images; of a pack: what was left out when it was made
	Digest  string         `json:"sha256"` // of a pack's content
	Notes   []string       `json:"notes"`  // what lies there besides, and what training would mind
	set     *dataset.Set
}

// file is one image of a folder.
type file struct {
	path          string
	part          int // of Parts; -1: there are none
	class         int // of all classes
	at            int // its place in a packed set
	width, height int
	bytes         int64
	format        string
	fault         string
}

// Close gives a packed set back.
func (n *Info) Close() error {
	if n.set == nil {
		return nil
	}
	return n.set.Close()
}

// Look reads the header of every image of a folder, or of a packed set the
// tables. progress is called from one goroutine at a time.
func Look(ctx context.Context, path string, progress func(done, total int)) (*Info, error) {
	if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
		return lookPack(path)
	}
	n := &Info{Path: path, Kind: Folder, Formats: map[string]int{}, Parts: []Part{}, Classes: []Class{}, Faults: []Fault{}, Notes: []string{}}
	files, err := n.list(path)
	if err != nil {
		return nil, err
	}
	if err := read(ctx, files, progress); err != nil {
		return nil, err
	}
	n.count(files)
	return n, nil
}

// list finds the images and the classes of all parts.
func (n *Info) list(path string) (files []file, err error) {
	type listed struct {
		part   int
		folder *dataset.Folder
	}
	var all []listed
	for i, part := range Parts {
		for _, name := range append([]string{part}, otherNames[part]...) {
			dir := filepath.Join(path, name)
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				continue
			}
			// A class may be called test; a part has folders in it.
			if f, err := dataset.Survey(dir); err == nil {
				all = append(all, listed{i, f})
				break
			}
		}
	}
	if len(all) > 0 {
		n.Kind = Split
	} else {
		f, err := dataset.Survey(path)
		if err != nil {
			return nil, err
		}
		all = append(all, listed{-1, f})
	}
	var classes []string
	for _, l := range all {
		if text := l.folder.LeftOut.String(); text != "" {
			n.Notes = append(n.Notes, "left out of "+l.folder.Dir+": "+text)
		}
		classes = append(classes, l.folder.Classes...)
	}
	slices.Sort(classes)
	classes = slices.Compact(classes)
	if len(classes) == 1 {
		n.Notes = append(n.Notes, "one class: a classifier needs two")
	}
	for i, name := range classes {
		n.Classes = append(n.Classes, Class{Class: name, Index: i, Parts: map[string]int{}, Format: map[string]int{}})
	}
	for _, l := range all {
		if l.part >= 0 {
			n.Parts = append(n.Parts, Part{Part: Parts[l.part]})
		}
		for _, f := range l.folder.Files {
			class, _ := slices.BinarySearchFunc(n.Classes, l.folder.Classes[f.Class], func(c Class, name string) int { return cmp.Compare(c.Class, name) })
			files = append(files, file{path: filepath.Join(l.folder.Dir, f.Path), part: l.part, class: class})
		}
	}
	return files, nil
}

// read fills in what the headers say.
func read(ctx context.Context, files []file, progress func(done, total int)) error {
	jobs := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range jobs {
				files[i].look()
				mu.Lock()
				done++
				progress(done, len(files))
				mu.Unlock()
			}
		})
	}
feed:
	for i := range files {
		select {
		case jobs <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(jobs)
	wg.Wait()
	return ctx.Err()
}

// beginning is how much of a file is read for its header at first, and at most.
const (
	beginning = 64 << 10
	atMost    = 256 << 20
)

func (f *file) look() {
	in, err := os.Open(f.path)
	if err != nil {
		f.fault = err.Error()
		return
	}
	defer in.Close()
	if st, err := in.Stat(); err == nil {
		if !st.Mode().IsRegular() {
			f.fault = "not a regular file"
			return
		}
		f.bytes = st.Size()
	}
	b, err := io.ReadAll(io.LimitReader(in, beginning))
	if err == nil {
		f.width, f.height, f.format, err = dataset.Header(b)
		if err != nil && f.bytes > beginning && f.format != "" { // long prefaces; TIFF keeps its header anywhere
			var rest []byte
			if rest, err = io.ReadAll(io.LimitReader(in, atMost)); err == nil {
				f.width, f.height, f.format, err = dataset.Header(append(b, rest...))
			}
		}
	}
	if err != nil {
		f.fault = err.Error()
	}
}

// count makes the tables of what was read.
func (n *Info) count(files []file) {
	part := func(i int) *Part {
		at := slices.IndexFunc(n.Parts, func(p Part) bool { return p.Part == Parts[i] })
		return &n.Parts[at]
	}
	for _, p := range n.Parts {
		for c := range n.Classes {
			n.Classes[c].Parts[p.Part] = 0
		}
	}
	for _, f := range files {
		if f.fault != "" {
			rel, err := filepath.Rel(n.Path, f.path)
			if err != nil {
				rel = f.path
			}
			n.Faults = append(n.Faults, Fault{Path: filepath.ToSlash(rel), Reason: f.fault})
			continue
		}
		c := &n.Classes[f.class]
		c.files = append(c.files, f)
		c.Images++
		c.Bytes += f.bytes
		c.Format[f.format]++
		n.Images++
		n.Bytes += f.bytes
		n.Formats[f.format]++
		if f.part >= 0 {
			c.Parts[Parts[f.part]]++
			part(f.part).Images++
		}
	}
	all := []file{}
	for i := range n.Classes {
		c := &n.Classes[i]
		c.Width, c.Height = spread(c.files, width), spread(c.files, height)
		all = append(all, c.files...)
	}
	n.Width, n.Height, n.File = spread(all, width), spread(all, height), spread(all, size)
	n.shares()
}

func width(f file) int64  { return int64(f.width) }
func height(f file) int64 { return int64(f.height) }
func size(f file) int64   { return f.bytes }

// spread is of one figure of files; of an even number the lower middle counts.
func spread(files []file, of func(file) int64) Spread {
	if len(files) == 0 {
		return Spread{}
	}
	v := make([]int64, len(files))
	for i, f := range files {
		v[i] = of(f)
	}
	slices.Sort(v)
	return Spread{Min: v[0], Median: v[(len(v)-1)/2], Max: v[len(v)-1]}
}

// shares fills in what follows from the counts.
func (n *Info) shares() {
	if len(n.Classes) == 0 || n.Images == 0 {
		return
	}
	counts := make([]int, len(n.Classes))
	for i := range n.Classes {
		n.Classes[i].Share = float64(n.Classes[i].Images) / float64(n.Images)
		counts[i] = n.Classes[i].Images
	}
	most, least, ratio := extremes(counts)
	n.Balance = Balance{Largest: n.Classes[most].Class, Smallest: n.Classes[least].Class, Ratio: ratio}
	for i := range n.Parts {
		p := &n.Parts[i]
		p.Share = float64(p.Images) / float64(n.Images)
		for c := range n.Classes {
			counts[c] = n.Classes[c].Parts[p.Part]
		}
		_, _, p.Ratio = extremes(counts)
	}
}

// extremes are the places of the largest and the smallest count, the first of
// equals, and their ratio, 0 where the smallest is none.
func extremes(counts []int) (most, least int, ratio float64) {
	for i, c := range counts {
		if c > counts[most] {
			most = i
		}
		if c < counts[least] {
			least = i
		}
	}
	if counts[least] > 0 {
		ratio = float64(counts[most]) / float64(counts[least])
	}
	return most, least, ratio
}

func lookPack(path string) (*Info, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	set, err := dataset.OpenPack(path)
	if err != nil {
		return nil, err
	}
	side := int64(set.Size())
	same := Spread{Min: side, Median: side, Max: side}
	n := &Info{Path: path, Kind: Pack, Images: set.Len(), Bytes: st.Size(), Width: same, Height: same, Formats: map[string]int{}, Parts: []Part{},
		Faults: []Fault{}, Notes: []string{}, Digest: set.Digest(), set: set}
	each := 3 * side * side
	n.File = Spread{Min: each, Median: each, Max: each}
	for i, name := range set.Classes() {
		n.Classes = append(n.Classes, Class{Class: name, Index: i, Parts: map[string]int{}, Format: map[string]int{}, Width: same, Height: same})
	}
	for i := range set.Len() {
		c := &n.Classes[set.Label(i)]
		c.Images++
		c.Bytes += each
		c.files = append(c.files, file{path: set.Name(i), part: -1, class: set.Label(i), at: i})
	}
	for _, s := range set.Skipped() {
		n.Faults = append(n.Faults, Fault{Path: s.Path, Reason: s.Reason})
	}
	n.shares()
	return n, nil
}

// String says in a line what was looked at.
func (n *Info) String() string {
	switch n.Kind {
	case Pack:
		return fmt.Sprintf("packed set of %d images in %d classes, %d x %d pixels", n.Images, len(n.Classes), n.Width.Median, n.Height.Median)
	case Split:
		return fmt.Sprintf("split image folder of %d images in %d classes", n.Images, len(n.Classes))
	}
	return fmt.Sprintf("image folder of %d images in %d classes", n.Images, len(n.Classes))
}
