// Package bundle makes one file of a folder of results and a folder of such a
// file again, which may have come from another machine. It packs and takes
// regular files in folders and nothing else: no links, no devices, no names
// that lead elsewhere, no more bytes than the file itself has.
package bundle

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/files"
)

// noteName is the entry of what a bundle says about itself.
const noteName = ".note"

// Limits of a bundle that is unpacked.
const (
	MaxEntries = 2_000_000
	MaxNote    = 1 << 20 // bytes
	maxName    = 1024    // bytes of an entry's path
	maxDepth   = 16      // folders
)

// Packed is a bundle that was written.
type Packed struct {
	Size   int64
	SHA256 string // hex
	Files  int
}

// Pack writes the regular files below dir into one file, sorted by name; what
// is hidden (a leading dot) is left out. note travels along. The file is whole and
// on the disk when Pack returns, or not there. It must not lie below dir.
func Pack(dir, file string, note []byte) (p Packed, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("pack %s: %w", dir, err)
		}
	}()
	if len(note) > MaxNote {
		return p, fmt.Errorf("the note has %d bytes, more than %d", len(note), MaxNote)
	}
	tmp, err := files.Create(file, 0o644)
	if err != nil {
		return p, err
	}
	defer tmp.Abort()
	hash := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(tmp, hash), 1<<18)
	out := tar.NewWriter(buffered)
	if err := put(out, noteName, int64(len(note)), time.Unix(0, 0), strings.NewReader(string(note))); err != nil {
		return p, err
	}
	err = filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case at != dir && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		in, err := os.Open(at)
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := in.Stat()
		if err != nil {
			return err
		}
		p.Files++
		return put(out, filepath.ToSlash(rel), info.Size(), info.ModTime(), in)
	})
	if err != nil {
		return p, err
	}
	if err := errors.Join(out.Close(), buffered.Flush()); err != nil {
		return p, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return p, err
	}
	p.Size, p.SHA256 = info.Size(), hex.EncodeToString(hash.Sum(nil))
	return p, tmp.Commit()
}

func put(out *tar.Writer, name string, size int64, written time.Time, in io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: written.Truncate(time.Second)}
	if err := out.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if n, err := io.Copy(out, io.LimitReader(in, size)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	} else if n != size {
		return fmt.Errorf("%s changed while it was read", name)
	}
	return nil
}

// Unpack reads a bundle of size bytes and puts its files below dir, which is
// made if need be; a file of the same name is replaced. It returns the bundle's
// note and how many files came. When the bundle is refused or ends too soon
// nothing in dir was touched.
func Unpack(r io.Reader, size int64, dir string) (note []byte, files int, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("unpack results: %w", err)
		}
	}()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, 0, err
	}
	stage, err := os.MkdirTemp(dir, ".unpack-*") // the same file system: what is moved is not copied
	if err != nil {
		return nil, 0, err
	}
	defer os.RemoveAll(stage)
	note, names, err := extract(r, size, stage)
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return nil, 0, err
		}
		if err := os.Rename(filepath.Join(stage, filepath.FromSlash(name)), to); err != nil {
			return nil, 0, err
		}
	}
	return note, len(names), nil
}

// extract writes the files below stage, which is empty and ours.
func extract(r io.Reader, size int64, stage string) (note []byte, names []string, err error) {
	root, err := os.OpenRoot(stage)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	in := tar.NewReader(bufio.NewReaderSize(io.LimitReader(r, size), 1<<18))
	var bytes int64
	for entries := 0; ; entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if entries >= MaxEntries {
			return nil, nil, fmt.Errorf("more than %d entries", MaxEntries)
		}
		if h.Typeflag != tar.TypeReg {
			return nil, nil, fmt.Errorf("%.100q is not a regular file (type %q)", h.Name, h.Typeflag)
		}
		// A sparse file may claim far more than the bundle holds.
		if bytes += h.Size; h.Size < 0 || bytes > size {
			return nil, nil, fmt.Errorf("%.100q: the entries claim more than the %d bytes of the bundle", h.Name, size)
		}
		if h.Name == noteName {
			if note != nil || h.Size > MaxNote {
				return nil, nil, errors.New("it has two notes, or one that is too long")
			}
			if note, err = io.ReadAll(in); err != nil {
				return nil, nil, err
			}
			if note == nil {
				note = []byte{}
			}
			continue
		}
		if err := checkName(h.Name); err != nil {
			return nil, nil, err
		}
		if err := write(root, h.Name, in); err != nil {
			return nil, nil, fmt.Errorf("%.100q: %w", h.Name, err)
		}
		names = append(names, h.Name)
	}
	if note == nil {
		return nil, nil, errors.New("it has no note: this is not a bundle of results")
	}
	return note, names, nil
}

// checkName lets plain relative paths pass that mean one file on any system.
func checkName(name string) error {
	switch parts := strings.Split(name, "/"); {
	case name == "" || len(name) > maxName || len(parts) > maxDepth:
		return fmt.Errorf("%.100q: a name has 1 to %d bytes and at most %d folders", name, maxName, maxDepth)
	case path.Clean(name) != name || path.IsAbs(name) || !filepath.IsLocal(filepath.FromSlash(name)) || strings.ContainsAny(name, "\\\x00"):
		return fmt.Errorf("%.100q leads out of the folder", name)
	default:
		for _, p := range parts {
			if p[0] == '.' {
				return fmt.Errorf("%.100q is hidden", name)
			}
		}
	}
	return nil
}

func write(root *os.Root, name string, in io.Reader) error {
	if d := path.Dir(name); d != "." {
		if err := root.MkdirAll(filepath.FromSlash(d), 0o755); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(filepath.FromSlash(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return errors.New("appears twice")
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}
