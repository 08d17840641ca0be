package likeness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"sync"
)

const (
	maxFile   = 256 << 20
	maxPixels = 178_956_970 // where Pillow gives up too
)

// Read makes the prints of files, workers at a time; faults[i] says why
// prints[i] is nil. progress is called from one goroutine at a time.
func Read(ctx context.Context, paths []string, workers int, progress func(done, total int)) (prints []*Print, faults []error, err error) {
	prints, faults = make([]*Print, len(paths)), make([]error, len(paths))
	jobs := make(chan int)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for range max(workers, 1) {
		wg.Go(func() {
			for i := range jobs {
				prints[i], faults[i] = one(paths[i])
				mu.Lock()
				done++
				progress(done, len(paths))
				mu.Unlock()
			}
		})
	}
feed:
	for i := range paths {
		select {
		case jobs <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(jobs)
	wg.Wait()
	return prints, faults, ctx.Err()
}

func one(path string) (*Print, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := contents.Get().(*bytes.Buffer)
	defer contents.Put(b)
	b.Reset()
	if info, err := f.Stat(); err == nil && info.Size() <= maxFile {
		b.Grow(int(info.Size()) + bytes.MinRead)
	}
	if _, err := b.ReadFrom(io.LimitReader(f, maxFile+1)); err != nil {
		return nil, err
	}
	if b.Len() > maxFile {
		return nil, fmt.Errorf("larger than %d MiB", maxFile>>20)
	}
	return Of(b.Bytes(), maxPixels)
}

// contents takes files, one after the other.
var contents = sync.Pool{New: func() any { return new(bytes.Buffer) }}
