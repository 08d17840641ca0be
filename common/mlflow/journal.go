package mlflow

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"atelier/common/files"
)

// journal is the file of one run. One goroutine appends entries, another reads
// them and appends marks.
//
// Its size is bounded by dropping new metrics, never by rewriting: a file that only grows has no moment
// at which a crash leaves two versions of it. It is removed when all of it is delivered. When the disk
// refuses it, it is given up for memory: delivery goes on, but what is not sent when the program ends
// is lost, which the person is told at once.
type journal struct {
	file  string
	limit int64

	mu      sync.Mutex
	f       *os.File // nil when it was given up
	size    int64
	entries int64   // appended, on disk and in memory
	onDisk  int64   // of entries
	memory  []entry // those after onDisk, once the disk refused
	more    chan struct{}

	// Of the reading side.
	at   int64 // offset of the next line
	read int64 // entries read

	head       head
	sent, done int64
	made       bool
	run, where string
	end        bool // an end is among the entries
	lastMS     int64
}

// createJournal makes a journal that is this process's own.
func createJournal(dir string, h head, limit int64) (*journal, error) {
	h.Version = journalVersion
	j := &journal{file: filepath.Join(dir, h.Identity+".journal"), limit: limit, head: h, more: make(chan struct{}, 1), run: h.RunID}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		j.f, err = os.OpenFile(j.file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	}
	if err == nil {
		err = files.TryLock(j.f)
	}
	if err == nil {
		err = j.append(record{Head: &h})
		j.at = j.size
	}
	if err != nil {
		j.giveUp()
	}
	return j, err
}

// adoptJournal takes over a journal that an ended process left. It is nil
// without an error when somebody holds it, or it is gone.
func adoptJournal(file string, limit int64) (*journal, error) {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	err = files.TryLock(f)
	named := false
	if err == nil {
		// Its owner may have delivered and removed it between the two calls.
		named, err = files.Named(f)
	}
	if errors.Is(err, files.ErrLocked) || err == nil && !named {
		f.Close()
		return nil, nil
	}
	j := &journal{file: file, limit: limit, f: f, more: make(chan struct{}, 1)}
	if err == nil {
		err = j.scan()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return j, nil
}

// scan reads the whole journal: what was sent, what was answered. What follows a
// torn line was never acted upon and is cut off.
func (j *journal) scan() error {
	lines := bufio.NewReaderSize(io.NewSectionReader(j.f, 0, 1<<62), 1<<16)
	var offset, doneAt int64
	first := true
	type place struct{ number, at int64 }
	var starts []place // of entries not done
	for {
		line, err := readLine(lines)
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return err
		}
		r, err := decodeRecord(line)
		if err != nil {
			break
		}
		switch {
		case first:
			if r.Head == nil || r.Head.Version != journalVersion || r.Head.Identity == "" {
				return errors.New("not a journal of this version")
			}
			j.head, j.run, first = *r.Head, r.Head.RunID, false
		case r.Entry != nil:
			j.entries++
			starts = append(starts, place{j.entries, offset})
			j.end = j.end || r.Entry.End != 0
			j.lastMS = max(j.lastMS, r.Entry.TimeMS)
		case r.Done > 0:
			j.done = max(j.done, min(r.Done, j.entries))
			for len(starts) > 0 && starts[0].number <= j.done {
				starts = starts[1:]
			}
		case r.Sent > 0:
			j.sent = max(j.sent, min(r.Sent, j.entries))
		case r.Made:
			j.made = true
		case r.Run != "":
			j.run, j.where = r.Run, r.Where
		}
		offset += int64(len(line))
	}
	if first {
		return errors.New("not a journal")
	}
	if err := j.f.Truncate(offset); err != nil {
		return err
	}
	if _, err := j.f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	if doneAt = offset; len(starts) > 0 {
		doneAt = starts[0].at
	}
	// Reading goes on behind the last entry that needs nothing more.
	j.size, j.onDisk, j.at, j.read = offset, j.entries, doneAt, j.done
	return nil
}

// readLine returns a line with its newline; a longer one than maxLine is torn.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err != bufio.ErrBufferFull || len(line) > maxLine {
			if err == bufio.ErrBufferFull {
				err = nil
			}
			return line, err
		}
	}
}

// append writes one line whole or not at all. The caller holds mu or is alone.
func (j *journal) append(r record) error {
	if j.f == nil {
		return os.ErrClosed
	}
	line, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if n, err := j.f.Write(line); err != nil {
		if n > 0 {
			j.f.Truncate(j.size)
			j.f.Seek(j.size, io.SeekStart)
		}
		return err
	}
	j.size += int64(len(line))
	return nil
}

// add appends entries. dropped counts the metrics for which there is no room; an
// error says that from here on the entries are in memory alone. Only metrics are dropped: parameters,
// tags, artifacts and the end are few, and say what the run is. Entries are not synced here; a power cut
// may take the last seconds of them, but not one that was sent, for mark syncs the file before that.
func (j *journal) add(entries []entry, pending int) (dropped int, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer func() {
		select {
		case j.more <- struct{}{}:
		default:
		}
	}()
	var block bytes.Buffer
	var held []entry
	for _, e := range entries {
		if e.Metric != "" {
			e.Text = python(e.Value) // JSON has no NaN and no infinities
			if j.f != nil && j.size+int64(block.Len()) > j.limit || j.f == nil && len(j.memory)+len(held) >= pending {
				dropped++
				continue
			}
		}
		j.end = j.end || e.End != 0
		j.lastMS = max(j.lastMS, e.TimeMS)
		line, e2 := encodeRecord(record{Entry: &e})
		if e2 != nil {
			return dropped, e2
		}
		block.Write(line)
		held = append(held, e)
	}
	if j.f != nil {
		n, e := j.f.Write(block.Bytes())
		if e == nil {
			j.size += int64(n)
			j.entries += int64(len(held))
			j.onDisk = j.entries
			return dropped, nil
		}
		j.f.Truncate(j.size)
		err = e
		j.release()
	}
	j.memory = append(j.memory, held...)
	j.entries += int64(len(held))
	return dropped, err
}

// mark appends a mark. With sync it is on the disk, and all entries with it, before mark returns: so it
// has to be for what is about to happen (sent, made), for without the mark a crash would make it happen
// twice. A lost done mark costs only a look at the server, so it is not waited for.
func (j *journal) mark(r record, sync bool) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case r.Sent > 0:
		j.sent = max(j.sent, r.Sent)
	case r.Done > 0:
		j.done = max(j.done, r.Done)
	case r.Made:
		j.made = true
	case r.Run != "":
		j.run, j.where = r.Run, r.Where
	}
	if j.f == nil {
		return nil
	}
	err := j.append(r)
	if err == nil && sync {
		err = j.f.Sync()
	}
	return err
}

// next returns up to n entries after those read, without moving on.
func (j *journal) next(n int) (out []entry, after int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	after = j.at
	if j.read < j.onDisk && j.f != nil {
		lines := bufio.NewReaderSize(io.NewSectionReader(j.f, j.at, j.size-j.at), 1<<16)
		for len(out) < n && j.read+int64(len(out)) < j.onDisk {
			line, err := readLine(lines)
			if err != nil {
				return nil, 0, err
			}
			r, err := decodeRecord(line)
			if err != nil {
				return nil, 0, err
			}
			after += int64(len(line))
			if r.Entry != nil {
				out = append(out, *r.Entry)
			}
		}
		return out, after, nil
	}
	from := j.read - j.onDisk
	return j.memory[from:min(int(from)+n, len(j.memory))], after, nil
}

// advance moves on by n entries; after is what next said.
func (j *journal) advance(n int, after int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.read += int64(n)
	j.at = after
	if j.f == nil {
		j.memory = j.memory[j.read-j.onDisk:]
		j.onDisk = j.read
	}
}

// ended reports whether the run's end is among the entries.
func (j *journal) ended() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.end
}

// left counts the entries that still need something.
func (j *journal) left() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.entries - j.done
}

// release gives the file up: it goes away, for without further marks a later
// start would send again what is sent from memory. The caller holds mu or is alone.
func (j *journal) release() {
	f := j.f
	j.f = nil
	if f == nil {
		return
	}
	defer f.Close()
	os.Remove(j.file)
	// What is on disk and not read yet moves to memory, so that one path is left.
	lines := bufio.NewReaderSize(io.NewSectionReader(f, j.at, j.size-j.at), 1<<16)
	for n := j.read; n < j.onDisk; {
		line, err := readLine(lines)
		if err != nil {
			break
		}
		if r, err := decodeRecord(line); err == nil && r.Entry != nil {
			j.memory = append(j.memory, *r.Entry)
			n++
		}
	}
	j.onDisk = j.read
}

// giveUp goes on in memory alone.
func (j *journal) giveUp() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.release()
}

// remove ends a journal whose entries are all delivered.
func (j *journal) remove() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f != nil {
		os.Remove(j.file)
		j.f.Close()
		j.f = nil
	}
}

// keep closes the file and leaves it for a later start; aside: under a name that no start takes, for a
// run that the server has deleted or refuses would be refused each time. It returns the file's name, ""
// where there is none.
func (j *journal) keep(aside bool) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return ""
	}
	file := j.file
	if aside {
		file += ".refused"
		if os.Rename(j.file, file) != nil {
			file = j.file
		}
	}
	j.f.Close()
	j.f = nil
	return file
}
