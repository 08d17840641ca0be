package checkpoint

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bytesAt gives out parts of a file: by reading them, or as they are mapped.
type bytesAt interface {
	bytesAt(offset, n int64) ([]byte, error)
}

// Read reads a checkpoint in PyTorch's zip form, in the older stream form, or in the safetensors form (as an
// ordered dictionary of its tensors); the content tells which. Each storage is read once, into
// memory that its tensors share; nothing else of the file's size is allocated. Checksums of the zip form are
// verified.
//
// Errors wrap ErrRefused when the file holds what a checkpoint may not (a name outside the list, too much of
// something); other errors speak of damage.
func Read(r io.ReaderAt, size int64) (Value, error) {
	f, err := read(r, size, reading{r, size})
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	return f.root, nil
}

type reading struct {
	r    io.ReaderAt
	size int64
}

func (s reading) bytesAt(offset, n int64) ([]byte, error) {
	if offset < 0 || n < 0 || offset > s.size || n > s.size-offset {
		return nil, errors.New("the file is cut off")
	}
	b := make([]byte, n)
	if m, err := s.r.ReadAt(b, offset); m < len(b) {
		return nil, fmt.Errorf("the file is cut off or cannot be read: %w", err)
	}
	return b, nil
}

// Mapped is an open checkpoint whose tensors' bytes are the file itself, mapped read-only.
type Mapped struct {
	// Root is the checkpoint's value. Its tensors must not be touched after Close.
	Root Value
	// Metadata are the words of a safetensors file, else nil.
	Metadata map[string]string
	// Format is the form of the file.
	Format Format
	// LeftOut names the entries of the file's dictionary that held objects of other kinds: "args (argparse.Namespace)".
	LeftOut []string

	b []byte
}

// Open maps a checkpoint file: no tensor is copied, and what is not looked at is not kept in memory.
func Open(path string) (*Mapped, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	defer f.Close()
	m, err := mapFile(f)
	if err != nil {
		return nil, fmt.Errorf("open checkpoint %s: %w", path, err)
	}
	return m, nil
}

func mapFile(f *os.File) (*Mapped, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil, errors.New("it is empty or not a regular file")
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	f2, err := read(bytes.NewReader(b), int64(len(b)), mapping(b))
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(b))
	}
	return &Mapped{Root: f2.root, Metadata: f2.metadata, Format: f2.format, LeftOut: f2.leftOut, b: b}, nil
}

// Close unmaps the file.
func (m *Mapped) Close() error {
	if m.b == nil {
		return nil
	}
	b := m.b
	m.b, m.Root = nil, nil
	return unix.Munmap(b)
}

type mapping []byte

func (m mapping) bytesAt(offset, n int64) ([]byte, error) {
	size := int64(len(m))
	if offset < 0 || n < 0 || offset > size || n > size-offset {
		return nil, errors.New("the file is cut off")
	}
	return m[offset : offset+n : offset+n], nil
}

// Format is the form of a checkpoint file.
type Format string

// The forms there are.
const (
	Zip         Format = "zip"         // PyTorch's since 1.6
	Legacy      Format = "legacy"      // PyTorch's before: a stream of pickles
	Safetensors Format = "safetensors" // tensors and words only
)

// content is what a file holds.
type content struct {
	root     Value
	metadata map[string]string
	format   Format
	leftOut  []string
}

func read(r io.ReaderAt, size int64, src bytesAt) (c content, err error) {
	magic := make([]byte, min(size, magicBytes))
	if _, err := r.ReadAt(magic, 0); err != nil && err != io.EOF {
		return c, err
	}
	switch {
	case looksLikeSafetensors(magic[:min(len(magic), headerAt+1)]):
		tensors, metadata, err := readSafetensors(size, src)
		if err != nil {
			return c, err
		}
		return content{root: FromStateDict(tensors), metadata: metadata, format: Safetensors}, nil
	case bytes.HasPrefix(magic, []byte("PK\x03\x04")):
		c.format = Zip
		c.root, c.leftOut, err = readZip(r, size, src)
		return c, err
	case len(magic) > 2 && magic[0] == opProto:
		c.format = Legacy
		c.root, c.leftOut, err = readLegacy(size, src)
		return c, err
	}
	return c, otherForm(magic)
}

const maxEntries = 1 << 20

func readZip(r io.ReaderAt, size int64, src bytesAt) (root Value, leftOut []string, err error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, nil, fmt.Errorf("zip archive: %w (cut off while it was written or copied?)", err)
	}
	if len(z.File) > maxEntries {
		return nil, nil, fmt.Errorf("%w: %d entries", ErrRefused, len(z.File))
	}
	entries := make(map[string]*zip.File, len(z.File))
	folder, found := "", false
	for _, f := range z.File {
		if _, twice := entries[f.Name]; twice {
			return nil, nil, fmt.Errorf("%w: entry %q appears twice", ErrRefused, f.Name)
		}
		entries[f.Name] = f
		if dir, ok := strings.CutSuffix(f.Name, "/data.pkl"); ok && !strings.Contains(dir, "/") && !found {
			folder, found = dir, true
		}
	}
	if !found {
		return nil, nil, errors.New("the archive has no data.pkl: not a PyTorch checkpoint")
	}
	if _, ok := entries[folder+"/constants.pkl"]; ok {
		return nil, nil, fmt.Errorf("%w: a TorchScript program (it has constants.pkl): save the model's state_dict instead", ErrRefused)
	}
	if f, ok := entries[folder+"/byteorder"]; ok {
		order, err := stored(src, f, 16)
		if err != nil {
			return nil, nil, err
		}
		if string(order) != "little" {
			return nil, nil, fmt.Errorf("%w: byte order %q, only little is read", ErrRefused, order)
		}
	}
	pickled, err := stored(src, entries[folder+"/data.pkl"], maxPickle)
	if err != nil {
		return nil, nil, err
	}
	m := newMachine(bytes.NewReader(pickled))
	if root, err = m.load(); err != nil {
		return nil, nil, err
	}
	if leftOut, err = withoutForeign(root); err != nil {
		return nil, nil, err
	}
	err = m.materialise(size, func(s *storage) ([]byte, error) {
		f, ok := entries[folder+"/data/"+s.key]
		if !ok {
			return nil, fmt.Errorf("storage %q is missing from the archive", s.key)
		}
		return stored(src, f, size)
	})
	return root, leftOut, err
}

// stored returns an entry's bytes after checking their sum. Only entries that are not compressed are read, as
// torch.save writes them: their size cannot exceed the file's.
func stored(src bytesAt, f *zip.File, limit int64) ([]byte, error) {
	if f.Method != zip.Store || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, fmt.Errorf("%w: entry %s is compressed, which torch.save does not do: unpack and save it again", ErrRefused, f.Name)
	}
	if f.UncompressedSize64 > uint64(limit) {
		return nil, fmt.Errorf("%w: entry %s of %d bytes, at most %d are taken", ErrRefused, f.Name, f.UncompressedSize64, limit)
	}
	offset, err := f.DataOffset()
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", f.Name, err)
	}
	b, err := src.bytesAt(offset, int64(f.UncompressedSize64))
	if err != nil {
		return nil, fmt.Errorf("entry %s: %w", f.Name, err)
	}
	if sum := crc32.ChecksumIEEE(b); sum != f.CRC32 {
		return nil, fmt.Errorf("entry %s is damaged (checksum %08x, should be %08x)", f.Name, sum, f.CRC32)
	}
	return b, nil
}

// materialise gives every tensor its bytes: a part of its storage where it is contiguous there, else a copy in
// row-major order. Copies are bounded in all, since a small storage can pose as a huge tensor (stride 0).
func (m *machine) materialise(fileSize int64, load func(*storage) ([]byte, error)) error {
	budget, loaded := 4*fileSize+64<<20, int64(0)
	for _, p := range m.tensors {
		base, offset := p.storage, p.offset
		if base.base != nil {
			offset += base.offset
			base = base.base
		}
		if base.data == nil {
			b, err := load(base)
			if err != nil {
				return err
			}
			if int64(len(b)) != base.numel*int64(base.dtype.Size()) {
				return fmt.Errorf("storage %q has %d bytes, %d elements of %v need %d", base.key, len(b), base.numel, base.dtype, base.numel*int64(base.dtype.Size()))
			}
			// Entries may lie over one another; then more is loaded than there is.
			if loaded += int64(len(b)); loaded > fileSize {
				return fmt.Errorf("%w: storages overlap in the file", ErrRefused)
			}
			base.data = b
		}
		n, size := p.tensor.Numel(), int64(p.tensor.DType.Size())
		if n == 0 {
			continue
		}
		if isContiguous(p.tensor.Shape, p.strides) {
			p.tensor.Data = base.data[offset*size : (offset+n)*size : (offset+n)*size]
			continue
		}
		if budget -= n * size; budget < 0 {
			return fmt.Errorf("%w: tensors that are views need far more memory than the file has bytes", ErrRefused)
		}
		p.tensor.Data = gather(base.data, offset, p.tensor.Shape, p.strides, size)
	}
	return nil
}

func isContiguous(shape, strides []int64) bool {
	want := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		if shape[i] != 1 && strides[i] != want {
			return false
		}
		want *= shape[i]
	}
	return true
}

// gather copies a strided tensor into row-major order.
func gather(data []byte, offset int64, shape, strides []int64, size int64) []byte {
	n := size
	for _, d := range shape {
		n *= d
	}
	out := make([]byte, 0, n)
	inner := len(shape) - 1
	index := make([]int64, len(shape))
	for {
		at := offset
		for i, x := range index[:inner] {
			at += x * strides[i]
		}
		for range shape[inner] {
			out = append(out, data[at*size:(at+1)*size]...)
			at += strides[inner]
		}
		i := inner - 1
		for ; i >= 0; i-- {
			if index[i]++; index[i] < shape[i] {
				break
			}
			index[i] = 0
		}
		if i < 0 {
			return out
		}
	}
}
