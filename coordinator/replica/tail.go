package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"atelier/common/files"
)

// tailNote is the file log/tail: the last entry that is known to be on disk. A
// log store takes damage in its last records for a write that a crash tore, and
// drops them; raft would then forget entries that it has acknowledged. A log that
// ends below the note has lost some.
//
// The note is written after each append and not synced there: it is one write to
// the kernel's memory, which a killed process leaves behind. A loss of power can
// only make it older, by syncEvery at most; it is synced before it goes down.
type tailNote struct {
	mu    sync.Mutex
	file  *os.File
	index uint64
	term  uint64 // 0 = not known
	dirty bool

	stop chan struct{}
	done chan struct{}
}

const (
	tailName  = "tail"
	tailSize  = 8 + 8 + 8 + 4
	syncEvery = 2 * time.Second
)

var tailMagic = []byte("ATTAIL1\n")

// openTail reads the note; found is false when there is none.
func openTail(dir string) (t *tailNote, found bool, err error) {
	name := filepath.Join(dir, tailName)
	b, err := os.ReadFile(name)
	found = err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, false, err
	}
	t = &tailNote{stop: make(chan struct{}), done: make(chan struct{})}
	if found {
		if t.index, t.term, err = decodeTail(b); err != nil {
			return nil, true, fmt.Errorf("%s: %w", name, err)
		}
	}
	return t, found, nil
}

func decodeTail(b []byte) (index, term uint64, err error) {
	if len(b) != tailSize || string(b[:8]) != string(tailMagic) {
		return 0, 0, errors.New("no note of the log's end")
	}
	if crc32.Checksum(b[:24], castagnoli) != binary.LittleEndian.Uint32(b[24:]) {
		return 0, 0, errors.New("its CRC32C is not the one it was written with")
	}
	return binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:]), nil
}

func encodeTail(index, term uint64) [tailSize]byte {
	var b [tailSize]byte
	copy(b[:], tailMagic)
	binary.LittleEndian.PutUint64(b[8:], index)
	binary.LittleEndian.PutUint64(b[16:], term)
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	return b
}

// begin opens the file for writing, with the present end of the log in it.
func (t *tailNote) begin(dir string, index, term uint64) error {
	name := filepath.Join(dir, tailName)
	if _, err := os.Stat(name); err != nil {
		b := encodeTail(index, term)
		if err := files.Write(name, b[:], 0o600); err != nil {
			return err
		}
	}
	var err error
	if t.file, err = os.OpenFile(name, os.O_WRONLY, 0o600); err != nil {
		return err
	}
	go t.run()
	return t.set(index, term, true)
}

// set notes the log's end; durable before it returns where that is asked for.
func (t *tailNote) set(index, term uint64, durable bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := encodeTail(index, term)
	if _, err := t.file.WriteAt(b[:], 0); err != nil {
		return err
	}
	t.index, t.term, t.dirty = index, term, !durable
	if durable {
		return syscall.Fdatasync(int(t.file.Fd()))
	}
	return nil
}

// run syncs the note now and then. A sync that fails costs the note's freshness
// alone; a disk that fails fails the log's own syncs too.
func (t *tailNote) run() {
	defer close(t.done)
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.stop:
			return
		case <-tick.C:
		}
		t.mu.Lock()
		dirty := t.dirty
		t.dirty = false
		t.mu.Unlock()
		if dirty {
			syscall.Fdatasync(int(t.file.Fd()))
		}
	}
}

func (t *tailNote) close() error {
	if t.file == nil {
		return nil
	}
	close(t.stop)
	<-t.done
	return errors.Join(t.file.Sync(), t.file.Close())
}
