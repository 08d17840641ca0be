package local_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/proto/atelier/v1/atelierv1connect"

	"connectrpc.com/connect"
)

// stand plays a coordinator or a worker: the test program, started under
// another name. What is tested is how processes are started, told apart, ended
// and found again; the real programs are tried by deploy/e2e.
type stand struct {
	atelierv1connect.UnimplementedClusterServiceHandler
	atelierv1connect.UnimplementedWorkerServiceHandler
	id, dir string
}

func play(program string, args []string) int {
	f := flag.NewFlagSet(program, flag.ContinueOnError)
	s := map[string]*string{}
	for _, name := range []string{"id", "name", "data", "address-file", "api", "listen", "raft", "gossip", "join", "addr", "slots", "threads-per-slot", "cache", "shared", "redis", "lease-ttl", "fail"} {
		s[name] = f.String(name, "", "")
	}
	f.Bool("bootstrap", false, "")
	if err := f.Parse(args); err != nil {
		return 2
	}
	fmt.Printf("started with %s\n", strings.Join(args, " "))
	if *s["fail"] != "" {
		fmt.Println("cannot continue:", *s["fail"])
		return 1
	}
	key, addr := "api", *s["api"]
	if program == "atelier-worker" {
		key, addr = "listen", *s["listen"]
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	st := &stand{id: *s["id"], dir: filepath.Dir(*s["address-file"])}
	mux := http.NewServeMux()
	mux.Handle(atelierv1connect.NewClusterServiceHandler(st))
	mux.Handle(atelierv1connect.NewWorkerServiceHandler(st))
	b, _ := json.Marshal(map[string]any{"id": st.id, key: l.Addr().String(), "raft": "raft-of-" + st.id, "gossip": "gossip-of-" + st.id + *s["name"], "pid": os.Getpid()})
	// Half a file first: whoever reads it too soon must try again.
	os.WriteFile(*s["address-file"], b[:len(b)/2], 0o644)
	time.Sleep(50 * time.Millisecond)
	os.WriteFile(*s["address-file"], b, 0o644)
	http.Serve(l, mux)
	return 0
}

func (s *stand) addresses(pattern, key string) map[string]string {
	out := map[string]string{}
	files, _ := filepath.Glob(filepath.Join(s.dir, pattern))
	for _, f := range files {
		var m map[string]any
		if b, err := os.ReadFile(f); err == nil && json.Unmarshal(b, &m) == nil {
			out[strings.TrimSuffix(filepath.Base(f), ".address.json")], _ = m[key].(string)
		}
	}
	return out
}

func (s *stand) GetNode(context.Context, *connect.Request[v1.GetNodeRequest]) (*connect.Response[v1.GetNodeResponse], error) {
	leader, _ := os.ReadFile(filepath.Join(s.dir, "leader"))
	r := &v1.GetNodeResponse{Id: s.id, Role: "follower", LeaderId: string(leader)}
	if s.id == string(leader) {
		r.Role = "leader"
	}
	return connect.NewResponse(r), nil
}

func (s *stand) ListMembers(context.Context, *connect.Request[v1.ListMembersRequest]) (*connect.Response[v1.ListMembersResponse], error) {
	leader, _ := os.ReadFile(filepath.Join(s.dir, "leader"))
	r := &v1.ListMembersResponse{LeaderId: string(leader)}
	for id, addr := range s.addresses("c*.address.json", "api") {
		r.Members = append(r.Members, &v1.Member{Id: id, ApiAddress: addr, Suffrage: "voter"})
	}
	return connect.NewResponse(r), nil
}

func (s *stand) ListWorkers(context.Context, *connect.Request[v1.ListWorkersRequest]) (*connect.Response[v1.ListWorkersResponse], error) {
	r := &v1.ListWorkersResponse{}
	for name, addr := range s.addresses("w*.address.json", "listen") {
		r.Workers = append(r.Workers, &v1.Worker{Name: name, Address: addr, State: "ready"})
	}
	return connect.NewResponse(r), nil
}

// programs makes a folder in which the test program has the programs' names.
func programs(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"atelier-coordinator", "atelier-worker"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func lead(t *testing.T, dir, id string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "leader"), []byte(id), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestClusterOfManyProcesses(t *testing.T) {
	ctx := limit(t, 60*time.Second)
	dir := filepath.Join(t.TempDir(), "run")
	lead(t, dir, "c2")
	c, err := local.Start(ctx, local.Config{Dir: dir, BinDir: programs(t), Coordinators: 5, Workers: 3, SlotsPerWorker: 2, Redis: true, Shared: true,
		LeaseTTL: 3 * time.Second, ExtraArgs: map[string][]string{"worker": {"--lease-ttl", "1s"}, "w2": {"--lease-ttl", "2s"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if len(c.APIAddrs()) != 5 || len(c.Workers) != 3 || len(c.Redis) != 1 {
		t.Fatalf("%d coordinators, %d workers, %d Redis", len(c.APIAddrs()), len(c.Workers), len(c.Redis))
	}
	said := func(p *local.Process, want string) {
		t.Helper()
		b, _ := os.ReadFile(p.Log)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last+" ", want+" ") {
			t.Errorf("%s: no %q in: %s", p.Name, want, last)
		}
	}
	said(c.Coordinators[0], "--bootstrap")
	said(c.Coordinators[0], "--redis "+c.Redis[0].Addr)
	said(c.Coordinators[3], "--lease-ttl 3s")
	said(c.Workers[0], "--slots 2 --threads-per-slot 1")
	said(c.Workers[0], "--addr "+strings.Join(c.APIAddrs(), ","))
	said(c.Workers[1], "--shared "+c.SharedDir+" --lease-ttl 1s --lease-ttl 2s")
	if b, _ := os.ReadFile(c.Coordinators[4].Log); strings.Contains(string(b), "--bootstrap") || !strings.Contains(string(b), "gossip-of-c1") {
		t.Errorf("c5: %s", b)
	}

	// The first one comes back on its ports, and makes no second cluster.
	first := c.Coordinators[0]
	addr, pid := first.Addr, first.PID()
	if err := first.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if first.Addr != addr || first.PID() == pid {
		t.Errorf("after a restart: %s pid %d, before: %s pid %d", first.Addr, first.PID(), addr, pid)
	}
	said(first, "--api "+addr)
	if b, _ := os.ReadFile(first.Log); strings.Count(string(b), "--bootstrap") != 1 {
		t.Errorf("it was told to bootstrap again:\n%s", b)
	}

	if p, err := c.Leader(ctx); err != nil || p.Name != "c2" {
		t.Errorf("leader %v, %v", p, err)
	}
	lead(t, dir, "c4")
	if p, err := c.Leader(ctx); err != nil || p.Name != "c4" {
		t.Errorf("leader %v, %v", p, err)
	}
	// One that says it leads while it is frozen is no leader.
	c.Coordinators[3].Pause()
	if p, err := c.Leader(limit(t, 3*time.Second)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("leader %v, %v", p, err)
	}
	c.Coordinators[3].Continue()

	if w, err := c.AddWorker(ctx); err != nil || w.Name != "w4" {
		t.Errorf("%v, %v", w, err)
	}
	var pids []int
	for _, p := range append(append(c.Redis, c.Coordinators...), c.Workers...) {
		pids = append(pids, p.PID())
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d outlived Close", pid)
		}
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	lead(t, dir, "c1")
	_, err := local.Start(limit(t, 30*time.Second), local.Config{Dir: dir, BinDir: programs(t), Coordinators: 3,
		ExtraArgs: map[string][]string{"c3": {"--fail", "the disk is full"}}})
	if err == nil || !strings.Contains(err.Error(), "c3 ended before it served") || !strings.Contains(err.Error(), "the disk is full") {
		t.Fatal(err)
	}
	st := &stand{dir: dir}
	for name, addr := range st.addresses("c*.address.json", "api") {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("%s still listens at %s", name, addr)
		}
	}
}

// A start that cannot succeed ends with its context.
func TestStartEndsWithItsContext(t *testing.T) {
	dir := t.TempDir() // nobody leads
	begin := time.Now()
	_, err := local.Start(limit(t, 2*time.Second), local.Config{Dir: dir, BinDir: programs(t), Coordinators: 3})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > 15*time.Second {
		t.Errorf("%v after %s", err, time.Since(begin))
	}
}

// Who watches a cluster learns of a process that ended by itself, and starts on
// the same folder again.
func TestAwaitExit(t *testing.T) {
	ctx := limit(t, 60*time.Second)
	dir := filepath.Join(t.TempDir(), "run")
	lead(t, dir, "c1")
	programs := programs(t)
	for range 2 {
		c, err := local.Start(ctx, local.Config{Dir: dir, BinDir: programs, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if err := c.AwaitExit(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("all live: %v", err)
		}
		cancel()
		if err := c.Workers[0].Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitExit(ctx); err == nil || !strings.Contains(err.Error(), "w1 ended (signal: killed)") || !strings.Contains(err.Error(), "started with") {
			t.Errorf("a worker died: %v", err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
