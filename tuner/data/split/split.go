// Package split copies an image folder into train, validation and test: by
// ratio and seed, class by class, images that are one never apart, and stable:
// what was put somewhere stays there when images are added. It changes
// nothing in the folder it reads.
package split

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/dataset"
	"atelier/common/filename"
	"atelier/common/files"
	"atelier/tuner/data/likeness"
)

// Parts of a split, in order.
var Parts = []string{"train", "validation", "test"}

// Manifest is the file beside the parts that says what went where.
const Manifest = "split.json"

// Options of a split.
type Options struct {
	Ratios   [3]float64 // of Parts; they add up to 1
	Seed     uint64
	Link     bool // hard links in place of copies
	Workers  int
	Progress func(done, total int)
	Say      func(notes []string) // told what was left out of the folder, before anything is written
}

// Report says what a split did.
type Report struct {
	Classes []string         `json:"classes"`
	Counts  map[string][]int `json:"counts"` // part -> images by class
	Groups  int              `json:"groups"` // sets of images that are one
	New     int              `json:"new"`
	Skipped []string         `json:"skipped,omitempty"` // no images
	Gone    []string         `json:"gone,omitempty"`    // were split before and are not there any more; their copies stay
	Apart   []string         `json:"apart,omitempty"`   // images that are one with an image in another part, both placed before
}

type manifest struct {
	Version int               `json:"version"`
	Source  string            `json:"source"`
	Seed    uint64            `json:"seed"`
	Ratios  [3]float64        `json:"ratios"`
	Files   map[string]string `json:"files"`             // class/image -> part
	Skipped []string          `json:"skipped,omitempty"` // class/file that is not an image
}

// Check tells what is wrong with ratios.
func Check(r [3]float64) error {
	sum := 0.0
	for i, v := range r {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("ratio of %s is %v: want shares from 0 to 1", Parts[i], v)
		}
		sum += v
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("ratios add up to %v: want 1, such as 0.7,0.15,0.15", sum)
	}
	if r[0] == 0 {
		return errors.New("ratio of train is 0: there would be nothing to learn from")
	}
	return nil
}

// Split reads from and writes to/train, to/validation, to/test.
func Split(ctx context.Context, from, to string, o Options) (*Report, error) {
	if err := Check(o.Ratios); err != nil {
		return nil, err
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	if o.Say == nil {
		o.Say = func([]string) {}
	}
	folder, err := dataset.List(from)
	if err != nil {
		return nil, err
	}
	o.Say(folder.Notes())
	if !slices.ContainsFunc(folder.Classes, func(c string) bool { return !slices.Contains(Parts, c) }) {
		return nil, fmt.Errorf("split %s: its folders are %s, so it is split already; give the folder with one subfolder per class", from, strings.Join(folder.Classes, ", "))
	}
	if rel, err := filepath.Rel(from, to); err == nil && filepath.IsLocal(rel) {
		return nil, fmt.Errorf("split into %s: it lies inside %s and would become a class; name a folder beside it", to, from)
	}
	m, err := readManifest(filepath.Join(to, Manifest))
	if err != nil {
		return nil, err
	}
	if m == nil {
		m = &manifest{Version: 1, Source: from, Seed: o.Seed, Ratios: o.Ratios, Files: map[string]string{}}
	} else if m.Seed != o.Seed || m.Ratios != o.Ratios {
		return nil, fmt.Errorf("%s was split with seed %d and ratios %v: the same are needed to add images; for others give another folder", to, m.Seed, m.Ratios)
	}
	paths := make([]string, len(folder.Files))
	for i, f := range folder.Files {
		paths[i] = filepath.Join(from, f.Path)
	}
	prints, _, err := likeness.Read(ctx, paths, o.Workers, o.Progress)
	if err != nil {
		return nil, err
	}
	r := &Report{Classes: folder.Classes, Counts: map[string][]int{}}
	for _, part := range Parts {
		r.Counts[part] = make([]int, len(folder.Classes))
	}
	place := assign(folder, prints, m, o, r)
	here := map[string]bool{}
	for i, f := range folder.Files {
		name := filepath.ToSlash(f.Path)
		here[name] = true
		if place[i] == "" {
			r.Skipped = append(r.Skipped, name)
			continue
		}
		r.Counts[place[i]][f.Class]++
	}
	for name := range m.Files {
		if !here[name] {
			r.Gone = append(r.Gone, name)
		}
	}
	slices.Sort(r.Gone)
	m.Skipped = r.Skipped
	// The manifest first: a split that is cut short is resumed where it was.
	fresh := map[int]bool{}
	for i, f := range folder.Files {
		name := filepath.ToSlash(f.Path)
		if _, known := m.Files[name]; place[i] != "" && !known {
			fresh[i] = true
			r.New++
			m.Files[name] = place[i]
		}
	}
	for i := range fresh {
		name := filepath.ToSlash(folder.Files[i].Path)
		if _, err := os.Lstat(target(to, place[i], name)); err == nil {
			same, err := sameContent(paths[i], target(to, place[i], name))
			if err != nil || !same {
				return nil, errors.Join(fmt.Errorf("split into %s: %s is there already with another content and was not put there by a split; nothing was written", to, filepath.Join(place[i], name)), err)
			}
		}
	}
	if err := m.write(filepath.Join(to, Manifest)); err != nil {
		return nil, err
	}
	// Every part has every class, be it an empty one: a training wants the same
	// classes in all.
	for p, part := range Parts {
		for _, class := range folder.Classes {
			if o.Ratios[p] == 0 {
				continue
			}
			if err := os.MkdirAll(filepath.Join(to, part, class), 0o755); err != nil {
				return nil, fmt.Errorf("split: %w", err)
			}
		}
	}
	for i, f := range folder.Files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if place[i] == "" {
			continue
		}
		if err := put(paths[i], target(to, place[i], filepath.ToSlash(f.Path)), o.Link); err != nil {
			return nil, fmt.Errorf("split: %w", err)
		}
	}
	return r, nil
}

func target(to, part, name string) string { return filepath.Join(to, part, filepath.FromSlash(name)) }

// assign gives each image its part; "" is no image. Groups of images that
// are one go together. What the manifest knows stays; the rest is dealt out
// class by class, in an order drawn from the seed and the images' bytes, each
// to the part that lacks most.
func assign(folder *dataset.Folder, prints []*likeness.Print, m *manifest, o Options, r *Report) []string {
	place := make([]string, len(folder.Files))
	group := make([]int, len(folder.Files))
	for i := range group {
		group[i] = i
	}
	members := map[int][]int{}
	for _, g := range likeness.Groups(len(folder.Files), likeness.Pairs(prints)) {
		for _, i := range g {
			group[i] = g[0]
		}
		r.Groups++
	}
	for i := range folder.Files {
		if prints[i] != nil {
			members[group[i]] = append(members[group[i]], i)
		}
	}
	have := make([][]float64, len(folder.Classes)) // by class and part
	total := make([]float64, len(folder.Classes))
	for c := range have {
		have[c] = make([]float64, len(Parts))
	}
	settle := func(i int, part string) {
		place[i] = part
		have[folder.Files[i].Class][slices.Index(Parts, part)]++
	}
	type bundle struct {
		key   [32]byte
		class int
		of    []int
	}
	var waiting []bundle
	for i := range folder.Files {
		g := members[i]
		if len(g) == 0 {
			continue
		}
		home := ""
		for _, k := range g {
			total[folder.Files[k].Class]++
			if part := m.Files[filepath.ToSlash(folder.Files[k].Path)]; part != "" {
				if home != "" && part != home {
					r.Apart = append(r.Apart, filepath.ToSlash(folder.Files[k].Path))
				}
				if home == "" {
					home = part
				}
				settle(k, part)
			}
		}
		var left []int
		for _, k := range g {
			if place[k] == "" {
				left = append(left, k)
			}
		}
		switch {
		case len(left) == 0:
		case home != "":
			for _, k := range left {
				settle(k, home)
			}
		default:
			b := bundle{class: folder.Files[left[0]].Class, of: left}
			for n, k := range left {
				h := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, o.Seed), prints[k].SHA[:]...))
				if n == 0 || bytes.Compare(h[:], b.key[:]) < 0 {
					b.key = h
				}
			}
			waiting = append(waiting, b)
		}
	}
	slices.SortStableFunc(waiting, func(a, b bundle) int {
		if a.class != b.class {
			return a.class - b.class
		}
		return bytes.Compare(a.key[:], b.key[:])
	})
	single := func(b bundle) bool {
		return !slices.ContainsFunc(b.of, func(k int) bool { return folder.Files[k].Class != b.class })
	}
	for _, b := range waiting {
		best, most := 0, math.Inf(-1)
		for p := range Parts {
			if o.Ratios[p] == 0 {
				continue
			}
			if lack := o.Ratios[p]*total[b.class] - have[b.class][p]; lack > most+1e-9 {
				best, most = p, lack
			}
		}
		for _, k := range b.of {
			settle(k, Parts[best])
		}
	}
	// A small class lacks less than one image everywhere but in train. Where it
	// has enough to be in every part, it is: of what was dealt now, the last goes
	// from where there are two at least.
	for p, part := range Parts {
		if o.Ratios[p] == 0 {
			continue
		}
		for class := range folder.Classes {
			if have[class][p] > 0 {
				continue
			}
			for i := len(waiting) - 1; i >= 0; i-- {
				b := waiting[i]
				from := slices.Index(Parts, place[b.of[0]])
				if b.class != class || !single(b) || have[class][from] <= float64(len(b.of)) {
					continue
				}
				have[class][from] -= float64(len(b.of))
				for _, k := range b.of {
					settle(k, part)
				}
				break
			}
		}
	}
	return place
}

func readManifest(path string) (*manifest, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; move it away to split again", path, err)
	}
	return m, nil
}

func parseManifest(b []byte) (*manifest, error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m.Version != 1 || m.Files == nil {
		return nil, fmt.Errorf("version %d of a split is not known here", m.Version)
	}
	files := make(map[string]string, len(m.Files))
	for text, part := range m.Files {
		name := filename.Decode(text)
		files[name] = part
		if !slices.Contains(Parts, part) || !filepath.IsLocal(filepath.FromSlash(name)) {
			return nil, fmt.Errorf("%q in %q cannot be", name, part)
		}
	}
	m.Files = files
	for i, text := range m.Skipped {
		m.Skipped[i] = filename.Decode(text)
	}
	return &m, nil
}

func (m *manifest) write(path string) error {
	out := *m
	out.Source, out.Files = filename.Encode(m.Source), make(map[string]string, len(m.Files))
	for name, part := range m.Files {
		out.Files[filename.Encode(name)] = part
	}
	out.Skipped = make([]string, len(m.Skipped))
	for i, name := range m.Skipped {
		out.Skipped[i] = filename.Encode(name)
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return files.WriteUnsynced(path, append(b, '\n'), 0o644)
}

// put copies or links an image unless it is there. What a symbolic link leads to
// is linked, not the link; where there are no hard links, or none across file
// systems, it is copied.
func put(from, to string, link bool) error {
	if _, err := os.Lstat(to); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if link {
		if whole, err := filepath.EvalSymlinks(from); err == nil && os.Link(whole, to) == nil {
			return nil
		}
	}
	return files.CopyUnsynced(from, to, 0o644)
}

func sameContent(a, b string) (bool, error) {
	x, err := os.ReadFile(a)
	if err != nil {
		return false, err
	}
	y, err := os.ReadFile(b)
	return bytes.Equal(x, y), err
}
