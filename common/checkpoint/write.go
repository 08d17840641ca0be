package checkpoint

import (
	"archive/zip"
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"atelier/common/files"
)

const (
	archiveName = "archive"
	alignment   = 64
	localHeader = 30 // bytes of a zip entry's local header before its name
)

// Write writes root as a .pth file in PyTorch's zip form. The tensors' bytes go from Data to w as they are:
// no copy of them is made.
func Write(w io.Writer, root Value) error {
	pickled, storages, err := encodePickle(root)
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	z := archive{zip: zip.NewWriter(w)}
	z.add("data.pkl", pickled)
	z.add("byteorder", []byte("little"))
	for key, t := range storages {
		z.add("data/"+strconv.Itoa(key), t.Data)
	}
	z.add("version", []byte("3\n"))
	if z.err == nil {
		z.err = z.zip.Close()
	}
	if z.err != nil {
		return fmt.Errorf("write checkpoint: %w", z.err)
	}
	return nil
}

// archive writes stored entries whose payloads start at multiples of 64 bytes, so that PyTorch can map them.
type archive struct {
	zip *zip.Writer
	at  int64
	err error
}

func (a *archive) add(name string, payload []byte) {
	if a.err != nil {
		return
	}
	name = archiveName + "/" + name
	// Header, name, and an extra field (four bytes of its own) that fills up to the alignment.
	unpadded := a.at + localHeader + int64(len(name)) + 4
	padding := (alignment - unpadded%alignment) % alignment
	extra := append([]byte{'F', 'B'}, binary.LittleEndian.AppendUint16(nil, uint16(padding))...)
	for range padding {
		extra = append(extra, 'Z')
	}
	out, err := a.zip.CreateRaw(&zip.FileHeader{
		Name:               name,
		Method:             zip.Store,
		CRC32:              crc32.ChecksumIEEE(payload),
		CompressedSize64:   uint64(len(payload)),
		UncompressedSize64: uint64(len(payload)),
		Extra:              extra,
	})
	if err == nil {
		_, err = out.Write(payload)
	}
	a.at = unpadded + padding + int64(len(payload))
	a.err = err
}

// Info describes a file written by Save.
type Info struct {
	Bytes  int64
	SHA256 string // in hex
}

// Save writes root to path so that a reader sees the old file or the whole new one: a temporary file beside it,
// synced, renamed, its folder synced. On an error (a full disk) the old file is untouched and the temporary one
// is gone.
func Save(path string, root Value) (Info, error) {
	return SaveAs(path, func(w io.Writer) error { return Write(w, root) })
}

// SaveAs is Save of whatever write writes.
func SaveAs(path string, write func(io.Writer) error) (info Info, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("save checkpoint %s: %w", path, err)
		}
	}()
	f, err := files.Create(path, 0o644)
	if err != nil {
		return Info{}, err
	}
	defer f.Abort()
	sum := sha256.New()
	count := &counter{w: io.MultiWriter(f, sum)}
	buffered := bufio.NewWriterSize(count, 1<<20)
	if err := write(buffered); err != nil {
		return Info{}, err
	}
	if err := buffered.Flush(); err != nil {
		return Info{}, err
	}
	if err := f.Commit(); err != nil {
		return Info{}, err
	}
	return Info{Bytes: count.n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}
