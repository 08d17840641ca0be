package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// Two checksums guard an entry of the log, both CRC32C, which the processor
// computes at some 10 GB/s.
//
// The proposer's is over the data alone. It travels in the entry's extensions
// through memory, network and disk to every node's Apply.
//
// The disk's is the guard's: over index, term, type and extensions, and over the
// data where no proposer's checksum covers it (raft's own entries, and those
// proposed by versions that had none). It stands behind the extensions, on disk
// only, so that each write and each read passes over the data once.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const (
	dataSumSize = 5 // CRC32C of the data, then dataSumKind
	dataSumKind = 0x01
	diskSumSize = 5 // CRC32C, then diskSumKind
	diskSumKind = 0xC5
)

// dataSum is what a proposer puts into an entry's extensions.
func dataSum(data []byte) []byte {
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, dataSumSize), crc32.Checksum(data, castagnoli))
	return append(b, dataSumKind)
}

// hasDataSum reports whether extensions are a proposer's checksum.
func hasDataSum(extensions []byte) bool {
	return len(extensions) == dataSumSize && extensions[dataSumSize-1] == dataSumKind
}

var errDataSum = errors.New("its data is not what was proposed: the CRC32C differs")

// checkData compares an entry's data with the proposer's checksum, where there is one.
func checkData(l *raft.Log) error {
	if hasDataSum(l.Extensions) && crc32.Checksum(l.Data, castagnoli) != binary.LittleEndian.Uint32(l.Extensions) {
		return errDataSum
	}
	return nil
}

func diskSum(l *raft.Log, extensions []byte) uint32 {
	var head [3 * 8]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	binary.LittleEndian.PutUint64(head[16:], uint64(l.Type))
	sum := crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, extensions)
	if !hasDataSum(extensions) {
		sum = crc32.Update(sum, castagnoli, l.Data)
	}
	return sum
}

// seal returns the entry as it goes to disk. The entry itself is shared with
// raft and stays as it is.
func seal(l *raft.Log) (*raft.Log, error) {
	if err := checkData(l); err != nil {
		return nil, err
	}
	sealed := *l
	sealed.Extensions = make([]byte, 0, len(l.Extensions)+diskSumSize)
	sealed.Extensions = append(sealed.Extensions, l.Extensions...)
	sealed.Extensions = binary.LittleEndian.AppendUint32(sealed.Extensions, diskSum(l, l.Extensions))
	sealed.Extensions = append(sealed.Extensions, diskSumKind)
	return &sealed, nil
}

// unseal checks an entry from disk that should be index, and takes the disk's
// checksum off it. Entries below checkedFrom were written before there were
// checksums and had no extensions at all.
func unseal(l *raft.Log, index, checkedFrom uint64) error {
	if l.Index != index {
		return fmt.Errorf("found entry %d in its place", l.Index)
	}
	if index < checkedFrom && len(l.Extensions) == 0 {
		return nil
	}
	n := len(l.Extensions) - diskSumSize
	if n < 0 || l.Extensions[n+diskSumSize-1] != diskSumKind {
		return errors.New("it has lost its checksum")
	}
	extensions := l.Extensions[:n:n]
	if diskSum(l, extensions) != binary.LittleEndian.Uint32(l.Extensions[n:]) {
		return errors.New("its CRC32C is not the one it was written with")
	}
	l.Extensions = extensions
	if n == 0 {
		l.Extensions = nil
	}
	return checkData(l)
}

// RotError says that a node's memory is not what it wrote: its disk or its
// machine's memory has changed it. The node must not go on, nor start again.
type RotError struct {
	Node   string // its id
	Folder string
	What   string // which file or entry, and what is wrong with it
	Err    error  // may be nil
}

func (e *RotError) Error() string {
	what := e.What
	if e.Err != nil {
		what += ": " + e.Err.Error()
	}
	return fmt.Sprintf("data folder %s is damaged: %s. This node stops, so that it does not answer or vote wrongly. "+
		"Take it off the cluster's list (atelier cluster remove %s), have its disk and memory checked, and start a coordinator in an empty folder, under a new --id, with --join. "+
		"If %s is the only coordinator, begin again in an empty folder with --bootstrap and restore the last saved snapshot (atelier cluster restore FILE)",
		e.Folder, what, e.Node, e.Node)
}

func (e *RotError) Unwrap() error { return e.Err }
