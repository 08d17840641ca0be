package replica

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"

	"atelier/common/files"
)

// metaFile keeps what is small and must never be wrong: term and vote, the log's
// list of segments, from which index on entries carry a checksum, and which
// snapshot is the newest. It stands in two files, each written in place and
// synced before the next one is touched: whatever a crash tears or rot changes in
// one of them, the other has the last value that was acknowledged. It takes the
// place of raft-wal's bbolt file, whose pages have no checksums: a flipped bit
// there makes a vote vanish.
type metaFile struct {
	dir   string
	mu    sync.Mutex
	twins [2]*os.File
	now   metaRecord
}

// metaRecord is what either of the two files holds.
type metaRecord struct {
	Seq    uint64 // grows with every write: of two files that can be read the higher counts
	WAL    types.PersistentState
	Stable map[string][]byte
	// Entries from CheckedFrom on carry a checksum; 0 = the log's end is not noted
	// yet, and no entry was written by this version.
	CheckedFrom uint64
	Snapshot    snapshotNote
	Forked      string `json:",omitempty"` // how the state was found to differ from the others'
}

// snapshotNote is the newest snapshot that was finished.
type snapshotNote struct {
	ID          string
	Index, Term uint64
	MetaSum     uint32 // CRC32C of its meta.json
}

var (
	twinNames = [2]string{"meta-a", "meta-b"}
	metaMagic = []byte("ATMETA1\n")
)

const (
	metaHead = 8 + 4 + 4 // magic, length, CRC32C of what follows
	metaMax  = 16 << 20  // bytes; a segment takes some 200
	// boltTombstone stands where raft-wal's own meta file was, so that a version
	// that knows nothing of metaFile refuses the folder. It would find no segments
	// and delete the files.
	boltTombstone = "The state of this log is in meta-a and meta-b. An older atelier-coordinator cannot read it.\n"
)

// openMeta opens the file and makes it for a new folder. older reads term and
// vote as an older version kept them; nil where raft-wal's bbolt file has them,
// which is then moved into this one.
func openMeta(dir string, older func(key []byte) ([]byte, error)) (*metaFile, error) {
	m := &metaFile{dir: dir}
	var found [2]*metaRecord
	var errs [2]error
	absent := 0
	for i, name := range twinNames {
		b, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			absent++
			errs[i] = err
		case err != nil:
			return nil, err
		default:
			found[i], errs[i] = decodeMeta(b)
		}
	}
	a, b := found[0], found[1]
	switch {
	case absent == 2:
		if err := m.create(older); err != nil {
			return nil, err
		}
	case a == nil && b == nil:
		return nil, fmt.Errorf("neither %s (%w) nor %s (%w) can be read", twinNames[0], errs[0], twinNames[1], errs[1])
	case b == nil || a != nil && a.Seq >= b.Seq:
		m.now = *a
	default:
		m.now = *b
	}
	if m.now.Stable == nil {
		m.now.Stable = map[string][]byte{}
	}
	for i, name := range twinNames {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			m.Close()
			return nil, err
		}
		m.twins[i] = f
	}
	if a == nil || b == nil || a.Seq != b.Seq {
		// Both must hold it before it is built upon.
		if err := m.write(m.now); err != nil {
			m.Close()
			return nil, err
		}
	}
	if older == nil {
		if err := m.bury(); err != nil {
			m.Close()
			return nil, err
		}
	}
	return m, files.SyncDir(dir)
}

// create makes the first file; it is there whole or not at all.
func (m *metaFile) create(older func(key []byte) ([]byte, error)) error {
	m.now.Stable = map[string][]byte{}
	if older != nil {
		if err := m.take(older); err != nil {
			return err
		}
	} else if _, err := os.Stat(filepath.Join(m.dir, metadb.FileName)); err == nil {
		if err := m.adopt(); err != nil {
			return fmt.Errorf("%s of an older version: %w", metadb.FileName, err)
		}
	} else if names, _ := filepath.Glob(filepath.Join(m.dir, "*.wal")); len(names) > 0 {
		return fmt.Errorf("%s and %s are gone, and %d segments of a log are there", twinNames[0], twinNames[1], len(names))
	}
	body, err := encodeMeta(m.now)
	if err != nil {
		return err
	}
	return files.Write(filepath.Join(m.dir, twinNames[0]), body, 0o600)
}

// adopt reads a bbolt file of raft-wal. A damaged one may make bbolt panic.
func (m *metaFile) adopt() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	var bolt metadb.BoltMetaDB
	defer bolt.Close()
	if m.now.WAL, err = bolt.Load(m.dir); err != nil {
		return err
	}
	return m.take(bolt.GetStable)
}

// take copies raft's keys.
func (m *metaFile) take(from func(key []byte) ([]byte, error)) error {
	for _, key := range []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"} {
		value, err := from([]byte(key))
		if err != nil {
			return err
		}
		if value != nil {
			m.now.Stable[key] = value
		}
	}
	return nil
}

// bury replaces a bbolt file that was adopted.
func (m *metaFile) bury() error {
	name := filepath.Join(m.dir, metadb.FileName)
	if info, err := os.Stat(name); err == nil && info.Size() == int64(len(boltTombstone)) {
		return nil
	}
	return files.Write(name, []byte(boltTombstone), 0o600)
}

// encodeMeta writes a record in whole blocks of 4 KiB, so that the file seldom grows.
func encodeMeta(r metaRecord) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if len(body) > metaMax {
		return nil, fmt.Errorf("%d bytes about the log's segments, at most %d", len(body), metaMax)
	}
	b := append([]byte{}, metaMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	b = append(b, body...)
	// Whole blocks: the file seldom grows, so that a sync writes its data alone.
	return append(b, make([]byte, 4096-len(b)%4096)...), nil
}

// decodeMeta reads a record; whatever is not exactly what was written is an error.
func decodeMeta(b []byte) (*metaRecord, error) {
	if len(b) < metaHead || string(b[:len(metaMagic)]) != string(metaMagic) {
		return nil, errors.New("no meta file")
	}
	size := binary.LittleEndian.Uint32(b[8:])
	if uint64(size) > uint64(len(b)-metaHead) {
		return nil, fmt.Errorf("%d bytes of %d", len(b)-metaHead, size)
	}
	body := b[metaHead : metaHead+size]
	if crc32.Checksum(body, castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return nil, errors.New("its CRC32C is not the one it was written with")
	}
	var r metaRecord
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// write puts a record into both files, one after the other.
func (m *metaFile) write(r metaRecord) error {
	r.Seq++
	b, err := encodeMeta(r)
	if err != nil {
		return err
	}
	for _, f := range m.twins {
		if f == nil {
			return os.ErrClosed
		}
		if _, err := f.WriteAt(b, 0); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return fmt.Errorf("sync %s: %w", f.Name(), err)
		}
	}
	m.now = r
	return nil
}

// change writes what edit makes of the present record.
func (m *metaFile) change(edit func(*metaRecord)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.now
	next.Stable = make(map[string][]byte, len(m.now.Stable))
	for k, v := range m.now.Stable {
		next.Stable[k] = v
	}
	edit(&next)
	return m.write(next)
}

// record is the present one; its parts are not changed in place.
func (m *metaFile) record() metaRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Load, CommitState, GetStable, SetStable and Close are raft-wal's MetaStore.
func (m *metaFile) Load(string) (types.PersistentState, error) { return m.record().WAL, nil }

// CommitState replaces the list of the log's segments.
func (m *metaFile) CommitState(s types.PersistentState) error {
	return m.change(func(r *metaRecord) { r.WAL = s })
}

// GetStable gives nil without an error for what was never set.
func (m *metaFile) GetStable(key []byte) ([]byte, error) {
	value := m.record().Stable[string(key)]
	if value == nil {
		return nil, nil
	}
	return append([]byte{}, value...), nil
}

// SetStable replaces one of raft's values; nil takes it away.
func (m *metaFile) SetStable(key, value []byte) error {
	return m.change(func(r *metaRecord) {
		if value == nil {
			delete(r.Stable, string(key))
		} else {
			r.Stable[string(key)] = append([]byte{}, value...)
		}
	})
}

// Close closes both files; everything is on disk already.
func (m *metaFile) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for i, f := range m.twins {
		if f != nil {
			errs = append(errs, f.Close())
			m.twins[i] = nil
		}
	}
	return errors.Join(errs...)
}
