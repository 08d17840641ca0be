package group

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is a segment of another member on this machine, or of this one.
type mapping struct{ b []byte }

// NewSegment makes memory of so many bytes that members on this machine can map,
// mapped here to be written. The file cannot shrink: reading what is mapped does
// not fail.
func NewSegment(name string, bytes int) (f *os.File, b []byte, err error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, nil, fmt.Errorf("memory for sums: %w", err)
	}
	f = os.NewFile(uintptr(fd), name)
	if err := unix.Ftruncate(fd, int64(bytes)); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("%d bytes of memory for sums: %w", bytes, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("memory for sums: %w", err)
	}
	b, err = unix.Mmap(fd, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("map %d bytes of memory for sums: %w", bytes, err)
	}
	return f, b, nil
}

// mapSegment maps what another member passed, to be read. The descriptor is
// closed.
func mapSegment(fd int, bytes int64) (*mapping, error) {
	defer unix.Close(fd)
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return nil, fmt.Errorf("a segment that could shrink (seals %#x, %v)", seals, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || bytes < 1 || bytes > stat.Size {
		return nil, fmt.Errorf("a segment of %d bytes in a file of %d, %v", bytes, stat.Size, err)
	}
	b, err := unix.Mmap(fd, 0, int(bytes), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map a segment of %d bytes: %w", bytes, err)
	}
	return &mapping{b}, nil
}

// floats are n floats from an offset in bytes on.
func (m *mapping) floats(offset int64, n int) ([]float32, error) {
	if m == nil || offset < 0 || offset%4 != 0 || n < 0 || offset > int64(len(m.b))-4*int64(n) {
		return nil, fmt.Errorf("%d floats at %d of a segment that has no such place", n, offset)
	}
	return floatsOf(m.b[offset : offset+4*int64(n)]), nil
}

func (m *mapping) release() {
	if m != nil && m.b != nil {
		unix.Munmap(m.b)
		m.b = nil
	}
}

// page is where a member on the same machine can see the last view that another
// has abandoned: since then the memory of its sums may have other content. Who
// read from it looks here before it counts what it read.
type page struct {
	mapping
	file *os.File // of the own one
}

const pageSize = 4096

func newPage() (*page, error) {
	f, b, err := NewSegment("atelier-view", pageSize)
	if err != nil {
		return nil, err
	}
	return &page{mapping{b}, f}, nil
}

func (p *page) word() *uint64 { return (*uint64)(unsafe.Pointer(&p.b[0])) }

func (p *page) abandon(view int) {
	if p != nil && p.b != nil {
		atomic.StoreUint64(p.word(), uint64(view))
	}
}

// barrier orders the reads before it: an atomic addition is a full barrier.
var barrier atomic.Int32

func (p *page) abandoned() int {
	if p == nil || p.b == nil {
		return 0
	}
	barrier.Add(1)
	return int(atomic.LoadUint64(p.word()))
}

func (p *page) close() {
	if p != nil {
		p.release()
		if p.file != nil {
			p.file.Close()
		}
	}
}
