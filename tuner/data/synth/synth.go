// Package synth draws house façades in architectural styles: a data set that anyone can make, of any size,
// without a download, hard enough that a training's settings matter.
//
// An image is a function of (version, seed, style, part, number): the same options give the same bytes, on any
// number of workers, and adding images or styles leaves the others as they are.
//
// The package refuses to write into a folder that holds anything it did not draw itself with the same options.
package synth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"atelier/common/files"
)

// Version changes whenever the same options would give other images.
const Version = 1

// DefaultStyles are the styles drawn when none are named.
var DefaultStyles = []string{"american_craftsman", "colonial", "gothic", "mediterranean", "tudor", "victorian"}

// Options say what is drawn. Zero values are defaults, except Seed, of which 0 is one like any other.
type Options struct {
	Styles []string // nil: DefaultStyles
	// Images of each style. All three 0: 100, 30, 30. Else as given; a part of 0 is left out.
	Train, Validation, Test int
	Size                    int // side in pixels, 32 to 1024; 0: 96
	Seed                    uint64
	// Difficulty from 0 to 1 says how far houses, colours, views, clutter and cameras vary; nil: 0.5.
	Difficulty *float64
	Workers    int // images drawn at a time; 0: one a core
	// Progress, when set, is called after each image, from one goroutine at a time.
	Progress func(done, total int)
}

// Summary says what Draw did.
type Summary struct {
	Dir                     string
	Styles                  []string
	Train, Validation, Test string // the folders for training settings; "" where there is none
	Images                  int    // images in the data set
	Drawn                   int    // of them drawn now; the others were there
	Elapsed                 time.Duration
}

const (
	minSize, maxSize = 32, 1024
	maxImages        = 10_000_000
)

// complete fills defaults in and checks.
func (o Options) complete() (Options, error) {
	if len(o.Styles) == 0 {
		o.Styles = DefaultStyles
	}
	o.Styles = slices.Clone(o.Styles)
	slices.Sort(o.Styles)
	for i, name := range o.Styles {
		if _, ok := findStyle(name); !ok {
			return o, fmt.Errorf("no style %q: there are %s", name, strings.Join(Styles(), ", "))
		}
		if i > 0 && name == o.Styles[i-1] {
			return o, fmt.Errorf("style %q is given twice", name)
		}
	}
	if o.Train == 0 && o.Validation == 0 && o.Test == 0 {
		o.Train, o.Validation, o.Test = 100, 30, 30
	}
	for _, n := range []int{o.Train, o.Validation, o.Test} {
		if n < 0 || n > maxImages {
			return o, fmt.Errorf("%d images per style: give 0 to %d", n, maxImages)
		}
	}
	if total := (o.Train + o.Validation + o.Test) * len(o.Styles); total > maxImages {
		return o, fmt.Errorf("%d images in all are more than %d", total, maxImages)
	}
	if o.Size == 0 {
		o.Size = 96
	}
	if o.Size < minSize || o.Size > maxSize {
		return o, fmt.Errorf("images of %d pixels: give %d to %d", o.Size, minSize, maxSize)
	}
	d := 0.5
	if o.Difficulty != nil {
		d = *o.Difficulty
	}
	if !(d >= 0 && d <= 1) {
		return o, fmt.Errorf("difficulty %v: give 0 to 1", d)
	}
	o.Difficulty = &d
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	return o, nil
}

// job is one image to draw.
type job struct {
	style  style
	part   string // train, validation or test
	number int
}

func (j job) path() string {
	return filepath.Join(j.part, j.style.name, fmt.Sprintf("%s_%s_%05d.jpg", j.style.name, j.part, j.number))
}

func (o Options) jobs() []job {
	var jobs []job
	for _, p := range o.parts() {
		for _, name := range o.Styles {
			s, _ := findStyle(name)
			for i := range p.count {
				jobs = append(jobs, job{s, p.name, i + 1})
			}
		}
	}
	return jobs
}

type part struct {
	name  string
	count int
}

func (o Options) parts() []part {
	var out []part
	for _, p := range []part{{"train", o.Train}, {"validation", o.Validation}, {"test", o.Test}} {
		if p.count > 0 {
			out = append(out, p)
		}
	}
	return out
}

// Draw makes the data set in dir: dir/train/<style>/*.jpg, and validation and test beside train. A folder that
// Draw made with the same options is left alone, or completed when something is missing; any other that is not
// empty is refused.
func Draw(ctx context.Context, dir string, o Options) (Summary, error) {
	started := time.Now()
	o, err := o.complete()
	if err != nil {
		return Summary{}, fmt.Errorf("draw façades: %w", err)
	}
	m := manifestOf(o)
	whole, err := claim(dir, m)
	if err != nil {
		return Summary{}, fmt.Errorf("draw façades: %w", err)
	}
	drawn, err := drawMissing(ctx, dir, o, whole)
	if err != nil {
		return Summary{}, fmt.Errorf("draw façades in %s: %w", dir, err)
	}
	m.Complete = true
	if err := m.save(dir); err != nil {
		return Summary{}, fmt.Errorf("draw façades: %w", err)
	}
	s := Summary{Dir: dir, Styles: o.Styles, Images: len(o.jobs()), Drawn: drawn, Elapsed: time.Since(started)}
	for _, p := range o.parts() {
		*map[string]*string{"train": &s.Train, "validation": &s.Validation, "test": &s.Test}[p.name] = filepath.Join(dir, p.name)
	}
	return s, nil
}

// drawMissing draws what is not there. Only in a folder known to be whole once are existing files trusted:
// after an interruption one may be of other bytes.
func drawMissing(ctx context.Context, dir string, o Options, trust bool) (int, error) {
	jobs := o.jobs()
	for _, p := range o.parts() {
		for _, s := range o.Styles {
			if err := os.MkdirAll(filepath.Join(dir, p.name, s), 0o755); err != nil {
				return 0, err
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	var next, drawn atomic.Int64
	finished := make(chan struct{})
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		done := 0
		for range finished {
			done++
			o.Progress(done, len(jobs))
		}
	}()
	for range o.Workers {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(jobs) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				path := filepath.Join(dir, jobs[i].path())
				if info, err := os.Stat(path); !trust || err != nil || info.Size() == 0 {
					if err := files.WriteUnsynced(path, jobs[i].draw(o), 0o644); err != nil {
						return err
					}
					drawn.Add(1)
				}
				finished <- struct{}{}
			}
		})
	}
	err := g.Wait()
	close(finished)
	<-reported
	return int(drawn.Load()), err
}

// Render draws one image without writing it. number counts from 1.
func Render(name, part string, number int, o Options) (image.Image, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	s, ok := findStyle(name)
	if !ok {
		return nil, fmt.Errorf("no style %q: there are %s", name, strings.Join(Styles(), ", "))
	}
	img, _ := job{s, part, number}.render(o)
	return img, nil
}

func (j job) render(o Options) (*image.RGBA, *rand.Rand) {
	r := rand.New(j.source(o.Seed))
	return render(j.style, o.Size, *o.Difficulty, r), r
}

// draw returns the image's file.
func (j job) draw(o Options) []byte {
	img, r := j.render(o)
	var b bytes.Buffer
	// Encoding to memory cannot fail: the size is within JPEG's.
	_ = jpeg.Encode(&b, img, &jpeg.Options{Quality: 72 + r.IntN(23)})
	return b.Bytes()
}

// source is the image's own random stream.
func (j job) source(seed uint64) *rand.PCG {
	sum := sha256.Sum256(fmt.Appendf(nil, "atelier façade %d/%d/%s/%s/%d", Version, seed, j.style.name, j.part, j.number))
	return rand.NewPCG(binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:]))
}

// occupied reports whether a folder is there and has anything in it.
func occupied(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(entries) > 0, err
}
