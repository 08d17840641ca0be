package replica_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"atelier/coordinator/replica"
	"atelier/coordinator/state"
)

// A node of one is opened in a process of its own for each flipped byte: what is
// tested is how a process ends, and raft's libraries panic on what they cannot
// read. The process is this test program.
func TestMain(m *testing.M) {
	if dir := os.Getenv("REPLICA_CHILD"); dir != "" {
		child(dir, os.Getenv("REPLICA_CHILD_DO"))
	}
	os.Exit(m.Run())
}

const endsWithWords = 3 // exit status

// truth is what a node answers: its state, and a term later than all before.
type truth struct {
	Index uint64
	Hash  string
	Term  uint64
}

// child opens the node in dir, which becomes leader. "fill" gives it a state first
// and waits to be killed, "stop" does that and shuts down, "look" says what it has.
func child(dir, do string) {
	end := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(endsWithWords)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	machine := state.New()
	n, err := replica.Open(replica.Config{ID: "n1", DataDir: dir, Listener: l, Bootstrap: do != "look", ClusterID: "test", Machine: machine, OnFatal: end,
		HeartbeatTimeout: 150 * time.Millisecond, SnapshotThreshold: 60, SnapshotInterval: 10 * time.Millisecond, TrailingLogs: 20,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		end(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for n.VerifyLeader(ctx) != nil {
		if ctx.Err() != nil {
			panic("no leader")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if do != "look" {
		for i := range 230 {
			for {
				_, err := n.Propose(ctx, createSweep(fmt.Sprintf("s-%d", i)))
				if err == nil {
					break
				}
				if ctx.Err() != nil {
					panic(err)
				}
			}
			if i == 200 { // the last ones are in the log alone
				for n.Stats().SnapshotIndex < 180 {
					time.Sleep(5 * time.Millisecond)
				}
			}
		}
	}
	h := machine.View().Hash()
	json.NewEncoder(os.Stdout).Encode(truth{machine.View().Index(), hex.EncodeToString(h[:]), n.Stats().Term})
	if do == "fill" {
		select {}
	}
	if do == "stop" {
		if err := n.Shutdown(ctx); err != nil {
			panic(err)
		}
	}
	os.Exit(0)
}

// runChild returns what the child said; nil when it ended with words.
func runChild(t *testing.T, dir, do string) (*truth, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "REPLICA_CHILD="+dir, "REPLICA_CHILD_DO="+do)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var got truth
	decodeErr := json.NewDecoder(out).Decode(&got)
	if do == "fill" {
		cmd.Process.Kill()
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == endsWithWords {
		return nil, said.String()
	}
	if decodeErr != nil || err != nil && do != "fill" {
		return nil, fmt.Sprintf("the node ended with %v, without an answer and without words:\n%s", err, said.String())
	}
	return &got, said.String()
}

func atoi(t *testing.T, env string, otherwise int64) int64 {
	if s := os.Getenv(env); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		return n
	}
	return otherwise
}

// TestRot flips one byte in a stopped and in a killed node's folder, again and
// again: the node either has the state it had, in a later term, or ends with
// words. ATELIER_ROT_FLIPS and ATELIER_ROT_SEED choose how often and where.
func TestRot(t *testing.T) {
	flips, seed := int(atoi(t, "ATELIER_ROT_FLIPS", 10)), atoi(t, "ATELIER_ROT_SEED", time.Now().UnixNano())
	t.Logf("ATELIER_ROT_SEED=%d", seed)
	for i, do := range []string{"stop", "fill"} {
		t.Run(map[string]string{"stop": "stopped", "fill": "killed"}[do], func(t *testing.T) {
			random := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
			whole := filepath.Join(t.TempDir(), "whole")
			before, said := runChild(t, whole, do)
			if before == nil {
				t.Fatalf("no state: %s", said)
			}
			served, ended := 0, map[string]int{}
			for flip := range flips + 1 {
				dir := filepath.Join(filepath.Dir(whole), "flipped")
				os.RemoveAll(dir)
				if out, err := exec.Command("cp", "-a", "--sparse=always", whole, dir).CombinedOutput(); err != nil {
					t.Fatalf("cp: %v: %s", err, out)
				}
				where := "nothing"
				if flip > 0 { // first as it is: that must open
					where = flipOne(t, random, dir)
				}
				now, said := runChild(t, dir, "look")
				if now == nil {
					if strings.Contains(said, "without words") || !strings.Contains(said, "data folder") {
						t.Errorf("flip %d, %s: without a reason is wrong:\n%s", flip, where, said)
					}
					if flip == 0 {
						t.Fatalf("an untouched folder does not open: %s", said)
					}
					ended[strings.SplitN(where, ",", 2)[0]]++
					continue
				}
				served++
				if now.Hash != before.Hash || now.Index != before.Index || now.Term <= before.Term {
					t.Errorf("flip %d, %s: the node serves %+v, and it was %+v\n%s", flip, where, *now, *before, said)
				}
			}
			t.Logf("%d flips: the truth %d times, ended with words %v", flips, served-1, ended)
		})
	}
}

// flipOne changes one byte of one file, mostly among those in use: a segment of
// the log is zeros for the most part.
func flipOne(t *testing.T, random *rand.Rand, dir string) string {
	t.Helper()
	var files []string
	filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			files = append(files, path)
		}
		return err
	})
	sort.Strings(files)
	path := files[random.IntN(len(files))]
	if random.IntN(2) == 0 { // the log is where the truth is
		for _, f := range files {
			if strings.HasSuffix(f, ".wal") {
				path = f
			}
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	switch {
	case random.IntN(10) == 0:
		used = len(b)
	case random.IntN(4) == 0 && used > 600: // the last records
		return flipAt(t, random, dir, path, used-1-random.IntN(600))
	}
	return flipAt(t, random, dir, path, random.IntN(used))
}

func flipAt(t *testing.T, random *rand.Rand, dir, path string, at int) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	was := b[0]
	b[0] ^= byte(1 + random.IntN(255))
	if _, err := f.WriteAt(b[:], int64(at)); err != nil {
		t.Fatal(err)
	}
	name, _ := filepath.Rel(dir, path)
	return fmt.Sprintf("%s, byte %d from %#x to %#x", name, at, was, b[0])
}
