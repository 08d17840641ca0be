package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// stat is what identifies an image's content without reading it.
type stat struct {
	size    int64
	changed int64 // Unix nanoseconds
	err     error
}

func statOf(info fs.FileInfo) stat {
	return stat{size: info.Size(), changed: info.ModTime().UnixNano()}
}

func cacheKey(f *Folder, o PackOptions) ([]stat, [32]byte, error) {
	if len(f.Files) == 0 || len(f.Classes) == 0 {
		return nil, [32]byte{}, fmt.Errorf("pack %s: the folder has no images", f.Dir)
	}
	h := sha256.New()
	var b []byte
	number := func(v int64) { b = binary.LittleEndian.AppendUint64(b, uint64(v)) }
	text := func(s string) { number(int64(len(s))); b = append(b, s...) }
	number(packVersion)
	text("turned by EXIF") // how images are decoded: packs made in another way are not taken
	for _, v := range []int{o.Size, o.ResizeTo, int(o.Mode), int(o.Filter), o.MaxPixels, int(o.MaxFileBytes), len(f.Classes)} {
		number(int64(v))
	}
	for _, c := range f.Classes {
		text(c)
	}
	stats := make([]stat, len(f.Files))
	for i, file := range f.Files {
		if file.Class < 0 || file.Class >= len(f.Classes) {
			return nil, [32]byte{}, fmt.Errorf("pack %s: %s has class %d of %d", f.Dir, file.Path, file.Class, len(f.Classes))
		}
		info, err := os.Stat(filepath.Join(f.Dir, file.Path))
		switch {
		case err != nil:
			stats[i] = stat{size: -1, err: err}
		case !info.Mode().IsRegular():
			// Reading a pipe would wait for ever.
			stats[i] = stat{size: -2, err: errors.New("not a regular file")}
		default:
			stats[i] = statOf(info)
		}
		text(file.Path)
		number(int64(file.Class))
		number(stats[i].size)
		number(stats[i].changed)
		h.Write(b)
		b = b[:0]
	}
	return stats, [32]byte(h.Sum(nil)), nil
}

// cached reports whether path is a whole pack made from key.
func cached(path string, key [32]byte) (Report, bool) {
	s, err := OpenPack(path)
	if err != nil {
		return Report{}, false
	}
	defer s.Close()
	if s.h.key != key {
		return Report{}, false
	}
	return Report{Images: s.Len(), Skipped: s.Skipped(), Turned: s.h.turned, Cached: true, Bytes: s.h.fileLen()}, true
}

// plainName makes the folder's last two names part of the pack's, for people who look into the cache.
func plainName(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	name := filepath.Base(filepath.Dir(abs)) + "-" + filepath.Base(abs)
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, name)
	return name[:min(len(name), 60)]
}
