//go:build libtorch

package torchx_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/torchx"
)

// standIn builds testdata/nccl.cc: NCCL's interface over the host's memory.
func standIn(t *testing.T) (library, dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nccl") // short: sockets lie below it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	library = filepath.Join(dir, "libnccl.so.2")
	out, err := exec.Command("g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-o", library, "testdata/nccl.cc").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return library, dir
}

// What is no NCCL, or an old one, is refused in words.
func TestNCCLThatIsRefused(t *testing.T) {
	library, dir := standIn(t)
	file, err := os.ReadFile(library)
	must(t, err)
	for version, want := range map[string]string{
		"22304": "is NCCL 2.23.4, which does not end a transfer that hangs; 2.26.2 is the first that does; install NCCL 2.26.2 or later",
		"22601": "is NCCL 2.26.1,", "2804": "is NCCL 2.8.4,", "22602": "",
	} {
		// A library is opened once for a file.
		path := filepath.Join(dir, version+".so")
		must(t, os.WriteFile(path, file, 0o755))
		t.Setenv("STANDIN_VERSION", version)
		n, err := torchx.OpenNCCL(path, torchx.CPU, "here")
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), path+" "+want)):
			t.Errorf("version %s: %v", version, err)
		case want != "" && !strings.Contains(err.Error(), "ATELIER_GROUP_TRANSFER=host"):
			t.Errorf("version %s: %v does not say what to do", version, err)
		case want == "" && (err != nil || n.Kind() != "NCCL 2.26.2" || n.Path() != path || n.Device() != "here"):
			t.Errorf("version %s: %+v, %v", version, n, err)
		}
	}
	if _, err := torchx.OpenNCCL(filepath.Join(dir, "none.so"), torchx.CPU, "here"); err == nil || !strings.Contains(err.Error(), "none.so cannot be loaded") {
		t.Errorf("a file that is not there: %v", err)
	}
	other := filepath.Join(dir, "other.so")
	if out, err := exec.Command("g++", "-shared", "-o", other, "-x", "c++", "/dev/null").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := torchx.OpenNCCL(other, torchx.CPU, "here"); err == nil || !strings.Contains(err.Error(), "has no ncclGetVersion") {
		t.Errorf("another library: %v", err)
	}
	if _, err := torchx.Identity(torchx.CPU); err == nil || !strings.Contains(err.Error(), "no identity") {
		t.Errorf("the CPU: %v", err)
	}
}

// crewman is what a process of TestMemberOfAGroup is told.
type crewman struct {
	ID, Members, Shards, Steps int
	Library                    string // empty: sums go through the host
	DiesIn                     int    // step in whose midst it kills itself; 0: none
}

const memberVariable = "ATELIER_TEST_MEMBER"

// present is how many shards a step has.
func (c crewman) present(step int) int {
	if step%4 == 3 {
		return 1 + step%c.Shards
	}
	return c.Shards
}

// diary is a member's state: the hash of each step's sums.
type diary struct{ Hashes []string }

func (d *diary) Write(w io.Writer) error { return json.NewEncoder(w).Encode(d) }
func (d *diary) Read(r io.Reader) error {
	d.Hashes = nil
	return json.NewDecoder(r).Decode(d)
}

func (d *diary) note(s sums) {
	h := sha256.New()
	for _, values := range s {
		for _, v := range values {
			fmt.Fprintf(h, "%08x", math.Float32bits(v))
		}
	}
	d.Hashes = append(d.Hashes, fmt.Sprintf("%x", h.Sum(nil)[:8]))
}

// counted is a mover that counts.
type counted struct {
	*torchx.NCCL
	meetings, buckets int
}

type countedCarrier struct {
	group.Carrier
	of *counted
}

func (c *counted) Meet(id []byte, rank, members int) (group.Carrier, error) {
	c.meetings++
	carrier, err := c.NCCL.Meet(id, rank, members)
	return countedCarrier{carrier, c}, err
}

func (c countedCarrier) Exchange(m group.Memory, p group.Plan, stop <-chan struct{}, came func(int)) error {
	return c.Carrier.Exchange(m, p, stop, func(bucket int) {
		c.of.buckets++
		came(bucket)
	})
}

// TestMemberOfAGroup is a member of a group in a process of its own, for the tests
// below; by itself it is the only one, and comes to the tree written out.
func TestMemberOfAGroup(t *testing.T) {
	lock(t)
	c := crewman{ID: 1, Members: 1, Shards: 5, Steps: 8}
	said := os.Getenv(memberVariable)
	if said != "" {
		if err := json.Unmarshal([]byte(said), &c); err != nil {
			t.Fatal(err)
		}
	}
	m, d := newMember(t, true, 2000), &diary{}
	job := trainerproto.Group{Token: 7, Member: c.ID, Shards: c.Shards}
	for id := 1; id <= c.Members; id++ {
		job.Members = append(job.Members, trainerproto.Fellow{Member: id, Name: fmt.Sprint("m", id)})
	}
	cfg := group.Config{Job: job, Links: links.NewReceiver(os.NewFile(3, "links")), Engine: "x", State: d, Stuck: time.Second}
	var reasons []string
	cfg.OnView = func(v group.View) {
		if v.Pause == 0 {
			reasons = append(reasons, v.Reason)
		}
	}
	var moves counted
	if c.Library != "" {
		n, err := torchx.OpenNCCL(c.Library, torchx.CPU, fmt.Sprint("memory of ", c.ID))
		must(t, err)
		moves.NCCL = n
		cfg.Mover = &moves
	}
	if c.Members == 1 {
		cfg.Links = nobody{}
	}
	g, err := group.Start(t.Context(), cfg)
	must(t, err)
	defer g.Close()
	for done := false; !done; {
		step, v, p := len(d.Hashes)+1, g.View(), 0
		var r *group.Round
		put := m.keep(t)
		if step <= c.Steps {
			p = c.present(step)
			must(t, m.Begin(v.From, v.To, p))
			r = g.Begin(int64(step), p, m.Buckets)
		} else {
			r = g.Begin(int64(step), 0, nil)
		}
		for s := min(v.From, p); s < min(v.To, p); s++ {
			m.learn(t, s, step, func() { must(t, m.Arm(s, 1/float64(p))) })
			must(t, m.Done())
			if step == c.DiesIn {
				time.Sleep(20 * time.Millisecond) // some buckets are under way
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
		_, err := r.Commit(nil)
		var changed *group.Changed
		switch {
		case errors.As(err, &changed):
			must(t, m.Drop())
		case err != nil:
			t.Fatal(err)
		case p > 0:
			must(t, m.Apply())
			d.note(m.sums(t))
		default:
			done = true
		}
		put()
	}
	if said == "" {
		if want := c.oracle(t); strings.Join(d.Hashes, " ") != want {
			t.Errorf("sums are %s, not %s", d.Hashes, want)
		}
		return
	}
	fmt.Printf("SUMS %s\nVIEWS %s\nMOVED %d %d\n", strings.Join(d.Hashes, " "), strings.Join(reasons, "; "), moves.meetings, moves.buckets)
}

type nobody struct{}

func (nobody) Next() (links.Link, error) { return links.Link{}, io.EOF }

// oracle are the hashes of the sums along the tree, written out.
func (c crewman) oracle(t *testing.T) string {
	plain, d := newSmall(t, true), &diary{}
	for step := 1; step <= c.Steps; step++ {
		p := c.present(step)
		var leaves []sums
		for s := range p {
			leaves = append(leaves, plain.leafOf(t, s, step, step+1, 1/float32(p)))
		}
		d.note(tree(leaves, 0, width(p)))
	}
	return strings.Join(d.Hashes, " ")
}

// crew runs members in processes, linked to each other; change is what is special
// of one. It returns what each printed.
func crew(t *testing.T, c crewman, change func(*crewman), env ...string) (outs []string) {
	t.Helper()
	outs = make([]string, c.Members)
	var senders []*links.Sender
	var wg sync.WaitGroup
	for i := range c.Members {
		host, trainer, err := links.Pair()
		must(t, err)
		senders = append(senders, links.NewSender(host))
		one := c
		one.ID = i + 1
		change(&one)
		told, err := json.Marshal(one)
		must(t, err)
		cmd := exec.Command(os.Args[0], "-test.run=^TestMemberOfAGroup$", "-test.timeout=100s")
		cmd.Env = append(append(os.Environ(), memberVariable+"="+string(told)), env...)
		cmd.ExtraFiles = []*os.File{trainer}
		wg.Go(func() {
			out, err := cmd.CombinedOutput()
			outs[i] = fmt.Sprintf("%s\nEND %v\n", out, err)
		})
		t.Cleanup(func() { trainer.Close() })
	}
	for i := range c.Members {
		for j := i + 1; j < c.Members; j++ {
			a, b, err := links.Pair()
			must(t, err)
			must(t, senders[i].Send(links.Header{Token: 7, Member: j + 1, Name: fmt.Sprint("m", j+1), Local: true}, a))
			must(t, senders[j].Send(links.Header{Token: 7, Member: i + 1, Name: fmt.Sprint("m", i+1), Local: true}, b))
		}
	}
	wg.Wait()
	return outs
}

func field(out, word string) string {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// Members in processes of their own come to the tree's bits, whatever carries the
// sums, and after whatever happens to it.
func TestNCCLMovesSums(t *testing.T) {
	lock(t)
	library, dir := standIn(t)
	base := crewman{Members: 3, Shards: 5, Steps: 8, Library: library}
	want := base.oracle(t)
	buckets := len(newMember(t, true, 2000).Sizes())
	for _, x := range []struct {
		what, fault string
		members     int
		dies        int // a member, in step 4
		host        bool
		views       string
		meetings    int
		log         []string
	}{
		{what: "host", members: 2, host: true, views: "start"},
		{what: "two", members: 2, views: "start", meetings: 1},
		{what: "three", members: 3, views: "start", meetings: 1},
		{what: "hang", members: 2, fault: "2 1 9 hang", views: "start; sums go through the host's memory from here on", meetings: 1,
			log: []string{"rank 0 of 2 aborted", "rank 1 of 2 aborted in group 10"}},
		{what: "error", members: 3, fault: "3 0 9 error", views: "start; sums go through the host's memory from here on", meetings: 1,
			log: []string{"rank 0 of 3 aborted in group 10, state 2", "rank 1 of 3 aborted", "rank 2 of 3 aborted"}},
		{what: "hang before the first", members: 3, fault: "3 2 0 hang", views: "start; sums go through the host's memory from here on", meetings: 1,
			log: []string{"rank 2 of 3 aborted in group 1"}},
		{what: "death", members: 3, dies: 2, views: "start; m2 was lost", meetings: 2, log: []string{"rank 0 of 3 aborted", "rank 2 of 3 aborted"}},
		{what: "death of rank 0", members: 3, dies: 1, views: "start; m1 was lost", meetings: 2, log: []string{"rank 1 of 3 aborted", "rank 2 of 3 aborted"}},
	} {
		t.Run(x.what, func(t *testing.T) {
			os.Remove(filepath.Join(dir, "log"))
			c := base
			c.Members = x.members
			outs := crew(t, c, func(one *crewman) {
				if x.host {
					one.Library = ""
				}
				if one.ID == x.dies {
					one.DiesIn = 4
				}
			}, "STANDIN_DIR="+dir, "STANDIN_FAULT="+x.fault)
			for i, out := range outs {
				if i+1 == x.dies {
					if field(out, "END") != "signal: killed" {
						t.Errorf("member %d did not die: %s", i+1, out)
					}
					continue
				}
				if field(out, "SUMS") != want || field(out, "VIEWS") != x.views || field(out, "END") != "<nil>" {
					t.Fatalf("member %d comes to other sums than %s, or has other views than %q:\n%s", i+1, want, x.views, out)
				}
				var meetings, moved int
				fmt.Sscan(field(out, "MOVED"), &meetings, &moved)
				switch all := buckets * c.Steps; {
				case meetings != x.meetings,
					x.host && moved != 0,
					!x.host && x.fault == "" && moved < all,
					x.fault != "" && moved >= all:
					t.Errorf("member %d: %d buckets of %d moved in %d meetings", i+1, moved, all, meetings)
				}
			}
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			for _, line := range x.log {
				if !strings.Contains(string(log), line) {
					t.Errorf("%q is not in\n%s", line, log)
				}
			}
		})
	}
}
