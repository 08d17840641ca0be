package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"atelier/deploy/bench/harness"
)

// childrenOf lists the processes of a program that a process started itself, by id.
func childrenOf(parent int, program string) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || filepath.Base(exe) != program {
			continue
		}
		if parentOf(pid) == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf is the process that started one; 0 where it has ended.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// PID (NAME) STATE PARENT ...; the name may have parentheses of its own.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}

// tailBuffer keeps the last words of a program; programs that are killed again and
// again write many.
type tailBuffer struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 256 << 10
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-most):]
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// last is the end of them, for a message.
func (t *tailBuffer) last() string { return string(harness.Tail([]byte(t.String()))) }

// lineReader reads JSON, a value per line.
type lineReader struct{ lines *bufio.Scanner }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewScanner(r)} }

func (l *lineReader) read(into any) error {
	if !l.lines.Scan() {
		return cmp.Or(l.lines.Err(), io.ErrUnexpectedEOF)
	}
	return json.Unmarshal(l.lines.Bytes(), into)
}
