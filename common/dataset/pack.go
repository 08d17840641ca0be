package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"atelier/common/files"
)

// PackOptions say how a folder is packed. The zero value of each field but Size is a default.
type PackOptions struct {
	// Size is the side of the packed squares in pixels. Required, 1 to 16384.
	Size int
	// ResizeTo is the length the shorter side gets before the crop; 0 means Size. 256 with Size 224 is the
	// usual validation transform.
	ResizeTo int
	// Mode says how an image becomes a square.
	Mode Mode
	// Filter is the resampling kernel.
	Filter Filter
	// CacheDir takes the packed files; "" means atelier/packs in the user's cache folder.
	CacheDir string
	// Workers is the number of images decoded at a time; 0 means one a core.
	Workers int
	// MaxPixels refuses larger images before they are decoded; 0 means DefaultMaxPixels.
	MaxPixels int
	// MaxFileBytes refuses larger files before they are read; 0 means 512 MiB.
	MaxFileBytes int64
	// Progress, when set, is called from one goroutine as images are finished, at the end with done == total.
	Progress func(done, total int)
}

// Skip is an image that could not be used, and why.
type Skip struct {
	Path   string // relative to the folder
	Reason string
}

// Report says what Pack did. A pack taken from the cache reports what was skipped when it was made.
type Report struct {
	Images  int    // images in the pack
	Skipped []Skip // images left out
	Turned  int    // images turned or mirrored as their EXIF orientation says
	Cached  bool   // the pack existed already
	Bytes   int64  // size of the packed file
	Elapsed time.Duration
}

// inFlightPixels bounds the decoded images held at a time; an image may take 4 to 8 bytes a pixel.
const inFlightPixels = 128 << 20

// Pack makes the packed file of a folder, or finds the one made earlier, and returns its path.
func Pack(f *Folder, o PackOptions) (string, Report, error) {
	return PackContext(context.Background(), f, o)
}

// PackContext is Pack until ctx ends.
//
// The packed file's name holds a digest of every image's path, size and time of change and of the options:
// when any of them changes, another file is made. Processes that want the same pack at a time wait for one
// another; a pack appears whole or not at all.
//
// An image that cannot be read or decoded is left out and reported. Errors: nothing usable is left in a
// class; an image changed meanwhile; the cache folder cannot be written (a full disk); ctx ended.
func PackContext(ctx context.Context, f *Folder, o PackOptions) (string, Report, error) {
	started := time.Now()
	if err := o.complete(); err != nil {
		return "", Report{}, err
	}
	stats, key, err := cacheKey(f, o)
	if err != nil {
		return "", Report{}, err
	}
	if err := os.MkdirAll(o.CacheDir, 0o755); err != nil {
		return "", Report{}, fmt.Errorf("cache folder for packed images: %w", err)
	}
	path := filepath.Join(o.CacheDir, fmt.Sprintf("%s-%dpx-%x.pack", plainName(f.Dir), o.Size, key[:8]))
	if r, ok := cached(path, key); ok {
		r.Elapsed = time.Since(started)
		o.Progress(r.Images+len(r.Skipped), r.Images+len(r.Skipped))
		return path, r, nil
	}
	lock, err := files.WaitLock(ctx, path+".lock")
	if err != nil {
		return "", Report{}, fmt.Errorf("pack %s: %w", f.Dir, err)
	}
	defer lock.Close()
	// Another process may have made it while this one waited.
	r, ok := cached(path, key)
	if ok {
		o.Progress(r.Images+len(r.Skipped), r.Images+len(r.Skipped))
	} else if r, err = write(ctx, path, f, stats, key, o); err != nil {
		return "", Report{}, fmt.Errorf("pack %s: %w", f.Dir, err)
	}
	r.Elapsed = time.Since(started)
	return path, r, nil
}

func (o *PackOptions) complete() error {
	if o.Size < 1 || o.Size > maxSide {
		return fmt.Errorf("pack: image size %d: give 1 to %d pixels", o.Size, maxSide)
	}
	if o.ResizeTo == 0 || o.Mode == Stretch {
		o.ResizeTo = o.Size
	}
	if o.ResizeTo < o.Size || o.ResizeTo > maxSide {
		return fmt.Errorf("pack: images resized to %d pixels cannot be cropped to %d: resize to %d or more", o.ResizeTo, o.Size, o.Size)
	}
	if o.Mode > Stretch || o.Filter > Bicubic {
		return fmt.Errorf("pack: unknown %v or %v", o.Mode, o.Filter)
	}
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("pack: no cache folder: %w: name one", err)
		}
		o.CacheDir = filepath.Join(dir, "atelier", "packs")
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxPixels <= 0 {
		o.MaxPixels = DefaultMaxPixels
	}
	if o.MaxFileBytes <= 0 {
		o.MaxFileBytes = 512 << 20
	}
	if o.Progress == nil {
		o.Progress = func(int, int) {}
	}
	return nil
}

// write makes the pack under a temporary name, which only the holder of the lock touches, and renames it.
func write(ctx context.Context, path string, f *Folder, stats []stat, key [32]byte, o PackOptions) (r Report, err error) {
	tmp := path + ".tmp"
	out, err := os.OpenFile(tmp, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o644)
	if err != nil {
		return Report{}, err
	}
	defer func() {
		if err != nil {
			out.Close()
			os.Remove(tmp)
		}
	}()
	// A disk too full is better known now than after an hour of decoding. File systems that cannot reserve
	// will say so when the time comes.
	expected := pixelsStart + int64(len(f.Files))*int64(o.Size)*int64(o.Size)*channels
	if err := unix.Fallocate(int(out.Fd()), 0, 0, expected); err == unix.ENOSPC || err == unix.EDQUOT {
		return Report{}, fmt.Errorf("%s: no room for %d MiB of packed images: free some space or choose another cache folder: %w", o.CacheDir, expected>>20, err)
	}
	w := newPackWriter(out, o.Size, f.Classes)
	skipped, turned, err := decodeAll(ctx, w, f, stats, o)
	if err != nil {
		return Report{}, err
	}
	if err := checkClasses(f, skipped); err != nil {
		return Report{}, err
	}
	h, err := w.finish(skipped, turned, key)
	if err != nil {
		return Report{}, fmt.Errorf("write packed images: %w", err)
	}
	if err := out.Truncate(h.fileLen()); err != nil {
		return Report{}, err
	}
	if err := out.Sync(); err != nil {
		return Report{}, fmt.Errorf("write packed images: %w", err)
	}
	if err := out.Close(); err != nil {
		return Report{}, fmt.Errorf("write packed images: %w", err)
	}
	if err := files.Rename(tmp, path); err != nil {
		return Report{}, err
	}
	return Report{Images: int(h.count), Skipped: skipped, Turned: turned, Bytes: h.fileLen()}, nil
}

// decoded is one image's outcome: pixels, or a reason, or an error that ends everything.
type decoded struct {
	pixels []byte
	turned bool
	reason string
	err    error
}

// decodeAll decodes with o.Workers goroutines and hands the squares to w in the folder's order. A window of
// images is under way at a time, so memory does not grow with the folder.
func decodeAll(ctx context.Context, w *packWriter, f *Folder, stats []stat, o PackOptions) (skipped []Skip, turned int, err error) {
	// Each image under way holds one slot and at most one buffer, so nobody waits for a buffer for ever.
	window := 4 * o.Workers
	slots := make(chan chan decoded, window)
	pixels := semaphore.NewWeighted(max(inFlightPixels, int64(o.MaxPixels)))
	free := make(chan []byte, window+o.Workers)
	for range cap(free) {
		free <- nil
	}
	g, ctx := errgroup.WithContext(ctx)
	type job struct {
		file int
		out  chan decoded
	}
	jobs := make(chan job)
	g.Go(func() error {
		defer close(slots)
		defer close(jobs)
		for i := range f.Files {
			j := job{i, make(chan decoded, 1)}
			select {
			case slots <- j.out:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case jobs <- j:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range o.Workers {
		g.Go(func() error {
			for j := range jobs {
				dst := <-free
				if dst == nil {
					dst = make([]byte, o.Size*o.Size*channels)
				}
				d := decodeFile(ctx, dst, filepath.Join(f.Dir, f.Files[j.file].Path), stats[j.file], o, pixels)
				if d.pixels == nil {
					free <- dst
				}
				j.out <- d
			}
			return nil
		})
	}
	g.Go(func() error {
		done := 0
		for slot := range slots {
			var d decoded
			select {
			case d = <-slot:
			case <-ctx.Done():
				return ctx.Err()
			}
			file := f.Files[done]
			switch {
			case d.err != nil:
				return d.err
			case d.reason != "":
				skipped = append(skipped, Skip{Path: file.Path, Reason: d.reason})
			default:
				if err := w.add(file.Path, file.Class, d.pixels); err != nil {
					return fmt.Errorf("write packed images: %w", err)
				}
				free <- d.pixels
				if d.turned {
					turned++
				}
			}
			done++
			o.Progress(done, len(f.Files))
		}
		if done < len(f.Files) {
			return ctx.Err()
		}
		return nil
	})
	err = g.Wait()
	return skipped, turned, err
}

func decodeFile(ctx context.Context, dst []byte, path string, want stat, o PackOptions, budget *semaphore.Weighted) decoded {
	if want.err != nil {
		return decoded{reason: plainReason(want.err)}
	}
	if want.size > o.MaxFileBytes {
		return decoded{reason: fmt.Sprintf("%d bytes long, more than the %d allowed", want.size, o.MaxFileBytes)}
	}
	held := fileBytes.Get().(*[]byte)
	defer fileBytes.Put(held)
	b, got, err := readFile(path, room(held, int(want.size)))
	if err != nil {
		return decoded{reason: plainReason(err)}
	}
	if got != want {
		return decoded{err: fmt.Errorf("%s changed while it was being packed: start again when nothing writes to the folder", path)}
	}
	// The memory an image will take is claimed before it is decoded.
	weight := int64(1)
	if format := Format(b); format != "" {
		if cfg, err := safeConfig(format, b); err == nil {
			weight = min(max(1, int64(cfg.Width)*int64(cfg.Height)), int64(o.MaxPixels))
		}
	}
	if err := budget.Acquire(ctx, weight); err != nil {
		return decoded{err: err}
	}
	defer budget.Release(weight)
	img, format, err := Decode(b, o.MaxPixels)
	if err != nil {
		return decoded{reason: err.Error()}
	}
	Square(dst, img, format, o.Size, o.ResizeTo, o.Mode, o.Filter)
	Free(img)
	return decoded{pixels: dst, turned: Turned(b)}
}

// fileBytes takes files, one after the other.
var fileBytes = sync.Pool{New: func() any { return new([]byte) }}

// readFile reads a file of so many bytes into b; of a shorter one the rest is zeros.
func readFile(path string, b []byte) ([]byte, stat, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, stat{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, stat{}, err
	}
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
		return nil, stat{}, err
	}
	clear(b[n:])
	return b, statOf(info), nil
}

// plainReason leaves out the path, which the report has already.
func plainReason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// checkClasses refuses a folder of which a class has nothing left.
func checkClasses(f *Folder, skipped []Skip) error {
	left := f.Counts()
	listed := slices.Clone(left)
	class := make(map[string]int, len(f.Files))
	for _, file := range f.Files {
		class[file.Path] = file.Class
	}
	example := make([]Skip, len(f.Classes))
	for _, s := range skipped {
		c := class[s.Path]
		left[c]--
		if example[c].Path == "" {
			example[c] = s
		}
	}
	var bad []string
	for c, n := range left {
		if n == 0 && listed[c] > 0 {
			bad = append(bad, fmt.Sprintf("class %q (for example %s: %s)", f.Classes[c], example[c].Path, example[c].Reason))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("no usable image is left in %s: replace the damaged files or remove the class folder", strings.Join(bad, ", "))
	}
	return nil
}
