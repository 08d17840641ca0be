#!/usr/bin/env bash
# hashicorp/raft never removes a snapshot that was cut off while it was written.
#
# Guess: a FileSnapshotStore that is told to retain 2 snapshots keeps its folder at two; what a killed process
# left half-written is removed by the next store that opens the folder, or by the next reaping.
# Seen with github.com/hashicorp/raft v1.8.0: the folder NAME.tmp stays through new stores, later snapshots and reapings. Each
# listing only logs "found temporary snapshot". A node that is killed while a large snapshot is written or received
# fills its disk a little each time, and the retain count does not bound it.
#
# Needs Go and its module proxy. Output of the run of 2026-11-29:
#   after a cut-off snapshot: 1 half, 0 whole
#   after a new store and 5 whole snapshots, retain 2: 1 half, 2 whole
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
cat >go.mod <<'MOD'
module halves
go 1.24
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

func count(dir string) (half, whole int) {
	entries, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") {
			half++
		} else {
			whole++
		}
	}
	return half, whole
}

func main() {
	dir := os.Args[1]
	open := func() *raft.FileSnapshotStore {
		s, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
		if err != nil {
			panic(err)
		}
		return s
	}
	_, transport := raft.NewInmemTransport("n1")
	members := raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: "n1"}}}
	sink, err := open().Create(1, 10, 1, members, 1, transport)
	if err != nil {
		panic(err)
	}
	fmt.Fprint(sink, "the first half") // and the process is killed
	half, whole := count(dir)
	fmt.Printf("after a cut-off snapshot: %d half, %d whole\n", half, whole)

	store := open()
	for i := range 5 {
		time.Sleep(5 * time.Millisecond) // names carry milliseconds
		sink, err := store.Create(1, uint64(20+i), 1, members, 1, transport)
		if err != nil {
			panic(err)
		}
		fmt.Fprint(sink, "all of it")
		if err := sink.Close(); err != nil {
			panic(err)
		}
	}
	open().List()
	half, whole = count(dir)
	fmt.Printf("after a new store and 5 whole snapshots, retain 2: %d half, %d whole\n", half, whole)
	if half != 1 || whole != 2 {
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod GOMODCACHE="$work/modules" GOWORK=off
go get github.com/hashicorp/raft@v1.8.0 >/dev/null 2>&1
if go run . "$work/folder"; then exit 0; fi
echo "CHANGED: the half is not what stayed"
exit 1
