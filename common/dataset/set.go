package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Set is an open packed image set. Its pixels are the file itself, mapped read-only: all processes that have
// it open share the same pages. A Set may be read from any number of goroutines until Close.
type Set struct {
	path   string
	mapped []byte
	h      header
	n      names
	labels []int64
}

// OpenPack maps a packed file and verifies it: signature, version, header, names, and the checksums of pixels
// and labels (which reads the whole file once, at memory speed when it is cached).
func OpenPack(path string) (*Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open packed image set: %w", err)
	}
	defer f.Close()
	s, err := openPack(f)
	if err != nil {
		return nil, fmt.Errorf("packed image set %s: %w", path, err)
	}
	s.path = path
	return s, nil
}

func openPack(f *os.File) (*Set, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head := make([]byte, headerSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("not a packed image set: %d bytes long", info.Size())
	}
	h, err := decodeHeader(head, info.Size())
	if err != nil {
		return nil, err
	}
	if int64(int(info.Size())) != info.Size() {
		return nil, fmt.Errorf("%d bytes are too many to map on this machine", info.Size())
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	s := &Set{mapped: mapped, h: h}
	if err := s.verify(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Set) verify() error {
	table := s.mapped[s.h.namesAt:s.h.fileLen()]
	if sha256.Sum256(table) != s.h.names {
		return fmt.Errorf("damaged names (checksum): delete the file, and it is made again")
	}
	n, err := decodeNames(table, s.h)
	if err != nil {
		return err
	}
	if crc32.Checksum(s.LabelsRaw(), castagnoli) != s.h.labelCRC {
		return fmt.Errorf("damaged labels (checksum): delete the file, and it is made again")
	}
	// Front to back once: tell the kernel so, and that random reads follow.
	_ = unix.Madvise(s.mapped, unix.MADV_SEQUENTIAL)
	sum := crc32.Checksum(s.PixelsRaw(), castagnoli)
	_ = unix.Madvise(s.mapped, unix.MADV_NORMAL)
	if sum != s.h.pixelCRC {
		return fmt.Errorf("damaged pixels (checksum): delete the file, and it is made again")
	}
	s.labels = make([]int64, s.h.count)
	for i := range s.labels {
		l := binary.LittleEndian.Uint64(s.mapped[s.h.labelsAt+8*int64(i):])
		if l >= uint64(s.h.classes) {
			return fmt.Errorf("image %d has label %d of %d classes", i, l, s.h.classes)
		}
		s.labels[i] = int64(l)
	}
	s.n = n
	return nil
}

// Close unmaps the set. Slices it gave out must not be touched afterwards.
func (s *Set) Close() error {
	if s.mapped == nil {
		return nil
	}
	m := s.mapped
	s.mapped = nil
	return unix.Munmap(m)
}

// Path is the packed file.
func (s *Set) Path() string { return s.path }

// Len is the number of images.
func (s *Set) Len() int { return int(s.h.count) }

// Size is the side of an image in pixels.
func (s *Set) Size() int { return s.h.size }

// Classes are the class names; the position is the label.
func (s *Set) Classes() []string { return slices.Clone(s.n.classes) }

// Label is the class index of image i.
func (s *Set) Label(i int) int { return int(s.labels[i]) }

// Labels are all labels. Read only.
func (s *Set) Labels() []int64 { return s.labels }

// Name is the path of image i, relative to the folder it came from.
func (s *Set) Name(i int) string { return s.n.paths[i] }

// Skipped are the images that could not be used when the set was packed.
func (s *Set) Skipped() []Skip { return slices.Clone(s.n.skipped) }

// Pixels are image i's bytes: height x width x RGB. Read only, valid until Close.
func (s *Set) Pixels(i int) []byte {
	n := s.h.size * s.h.size * channels
	at := pixelsStart + i*n
	return s.mapped[at : at+n : at+n]
}

// PixelsRaw are the bytes of all images, one after the other. Read only, valid until Close.
func (s *Set) PixelsRaw() []byte {
	return s.mapped[pixelsStart : pixelsStart+s.h.pixelsLen()]
}

// LabelsRaw are all labels as int64, little-endian, at a multiple of 64 bytes. Read only, valid until Close.
func (s *Set) LabelsRaw() []byte {
	return s.mapped[s.h.labelsAt : s.h.labelsAt+8*s.h.count]
}

// Digest identifies the content (images, order, labels, names): SHA-256 in hex, as written when packing.
func (s *Set) Digest() string { return hex.EncodeToString(s.h.content[:]) }

// Counts are the numbers of images of each class.
func (s *Set) Counts() []int {
	counts := make([]int, s.h.classes)
	for _, l := range s.labels {
		counts[l]++
	}
	return counts
}
