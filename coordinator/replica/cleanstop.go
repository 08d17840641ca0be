package replica

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"atelier/common/files"
)

// The file clean-stop says that a node was shut down whole, and what every file
// of its log and snapshots was then. The next Open compares all of them: what
// differs has rotted, and nothing of it can be a write torn by a crash. It is
// removed before the first write. One line a file: CRC32C, size, path; the last
// line is the CRC32C of those above.
const (
	cleanStop     = "clean-stop"
	cleanStopHead = "atelier clean stop 1"
)

var sealedDirs = [2]string{"log", "snapshots"}

// sums lists the files below the folder's log and snapshots, sorted by path.
func sums(folder string) ([]string, error) {
	var lines []string
	buffer := make([]byte, 1<<20)
	for _, dir := range sealedDirs {
		err := filepath.WalkDir(filepath.Join(folder, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			sum := crc32.New(castagnoli)
			size, err := io.CopyBuffer(onlyWriter{sum}, onlyReader{f}, buffer)
			if err != nil {
				return fmt.Errorf("read %s: %w", path, err)
			}
			name, err := filepath.Rel(folder, path)
			lines = append(lines, fmt.Sprintf("%08x %d %s", sum.Sum32(), size, filepath.ToSlash(name)))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	sort.Slice(lines, func(i, j int) bool { return pathOf(lines[i]) < pathOf(lines[j]) })
	return lines, nil
}

// onlyReader and onlyWriter keep io.CopyBuffer to the buffer given.
type onlyReader struct{ io.Reader }
type onlyWriter struct{ io.Writer }

// pathOf is the path of a line: sum, size, path.
func pathOf(line string) string {
	parts := strings.SplitN(line, " ", 3)
	return parts[len(parts)-1]
}

// markClean writes clean-stop. Everything must be closed.
func markClean(folder string) error {
	lines, err := sums(folder)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, cleanStopHead)
	for _, line := range lines {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "%08x\n", crc32.Checksum(b.Bytes(), castagnoli))
	return files.Write(filepath.Join(folder, cleanStop), b.Bytes(), 0o600)
}

// readClean reads clean-stop; nil when there is none.
func readClean(b []byte) ([]string, error) {
	body, last := b, []byte(nil)
	if i := bytes.LastIndexByte(bytes.TrimSuffix(b, []byte("\n")), '\n'); i >= 0 {
		body, last = b[:i+1], b[i+1:]
	}
	if string(last) != fmt.Sprintf("%08x\n", crc32.Checksum(body, castagnoli)) {
		return nil, errors.New("its CRC32C is not the one it was written with")
	}
	var lines []string
	scan := bufio.NewScanner(bytes.NewReader(body))
	for scan.Scan() {
		lines = append(lines, scan.Text())
	}
	if len(lines) == 0 || lines[0] != cleanStopHead {
		return nil, errors.New("it is of another version")
	}
	return lines[1:], scan.Err()
}

// checkClean compares the folder with clean-stop and removes that. clean is
// false when the node was not shut down whole, or has never run.
func checkClean(folder string) (clean bool, err error) {
	name := filepath.Join(folder, cleanStop)
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	want, err := readClean(b)
	if err != nil {
		return false, fmt.Errorf("%s: %w", cleanStop, err)
	}
	have, err := sums(folder)
	if err != nil {
		return false, err
	}
	if err := sameFiles(want, have); err != nil {
		return false, err
	}
	if err := os.Remove(name); err != nil {
		return false, err
	}
	return true, files.SyncDir(folder)
}

// sameFiles names the first file that differs, is gone or is new.
func sameFiles(want, have []string) error {
	found := map[string]string{}
	for _, line := range have {
		found[pathOf(line)] = line
	}
	for _, line := range want {
		path := pathOf(line)
		now, ok := found[path]
		switch {
		case !ok:
			return fmt.Errorf("%s is gone since the node was stopped", path)
		case now != line:
			return fmt.Errorf("%s has changed since the node was stopped (CRC32C and size were %s, are %s)", path,
				strings.TrimSuffix(line, " "+path), strings.TrimSuffix(now, " "+path))
		}
		delete(found, path)
	}
	for path := range found {
		return fmt.Errorf("%s was not there when the node was stopped", path)
	}
	return nil
}
