package main

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/coordinator/coordinatortest"
)

func leaderboard(t *testing.T, c *client.Client, sweep, source string) *atelierv1.GetLeaderboardResponse {
	t.Helper()
	resp, err := c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sweep, Source: source}))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Msg
}

// agree waits until Redis has caught up and then compares it with the state.
func agree(t *testing.T, c *client.Client, sweep string, rows int) {
	t.Helper()
	want := leaderboard(t, c, sweep, "state")
	if len(want.Rows) != rows {
		t.Fatalf("the state has %d rows, want %d", len(want.Rows), rows)
	}
	var got *atelierv1.GetLeaderboardResponse
	until(t, "redis has caught up", func() bool {
		resp, err := c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sweep, Source: "redis"}))
		if err != nil {
			return false
		}
		got = resp.Msg
		return got.Index >= want.Index
	})
	if len(got.Rows) != rows {
		t.Fatalf("redis has %d rows, the state %d", len(got.Rows), rows)
	}
	for i := range want.Rows {
		if !proto.Equal(want.Rows[i], got.Rows[i]) {
			t.Fatalf("row %d: redis %v, state %v", i, got.Rows[i], want.Rows[i])
		}
	}
	x, err := c.Raw().Sweeps.ListCheckpoints(background(t), connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sweep, Source: "redis"}))
	if err != nil {
		t.Fatal(err)
	}
	y, err := c.Raw().Sweeps.ListCheckpoints(background(t), connect.NewRequest(&atelierv1.ListCheckpointsRequest{Id: sweep, Source: "state"}))
	if err != nil || len(x.Msg.Checkpoints) != len(y.Msg.Checkpoints) {
		t.Fatalf("checkpoints: redis %d, state %d, %v", len(x.Msg.Checkpoints), len(y.Msg.Checkpoints), err)
	}
	for i := range y.Msg.Checkpoints {
		if !proto.Equal(x.Msg.Checkpoints[i], y.Msg.Checkpoints[i]) {
			t.Fatalf("checkpoint %d: redis %v, state %v", i, x.Msg.Checkpoints[i], y.Msg.Checkpoints[i])
		}
	}
}

// Whatever happens to Redis, it ends up equal to the state, and the cluster goes
// on at its pace meanwhile.
func TestRedisIsDisposable(t *testing.T) {
	r := coordinatortest.StartRedis(t)
	cl := startCluster(t, 3, "--redis", r.Addr)
	c := cl.client()
	a := coordinatortest.NewAgent(t, raw(c), "w1")
	done := 0
	sw := raw(c).Create(t, spec(1000, 50))
	finish := func(n int) time.Duration {
		t.Helper()
		began := time.Now()
		for range n {
			l := a.Acquire(50 * time.Second)
			if l == nil {
				t.Fatal("no lease")
			}
			a.Relay(report(l, 1, float64(done%7)), checkpointed(l, 1, float64(done%7)), ended(l, trial.ExitFinished))
			done++
		}
		return time.Since(began)
	}
	withRedis := finish(60)
	agree(t, c, sw.Id, done)
	until(t, "redis answers", func() bool { return leaderboard(t, c, sw.Id, "").Source == "redis" }) // it does while its board is fresh

	r.Do("FLUSHALL")
	agree(t, c, sw.Id, done) // an idle projector finds out by itself
	finish(10)
	r.Do("FLUSHALL")
	finish(10)
	agree(t, c, sw.Id, done)

	r.Do("SAVE")
	dump, err := os.ReadFile(filepath.Join(r.Dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	finish(20)
	agree(t, c, sw.Id, done)
	r.Stop()
	if err := os.WriteFile(filepath.Join(r.Dir, "dump.rdb"), dump, 0o600); err != nil {
		t.Fatal(err)
	}
	r.Start() // as it was 20 trials ago
	agree(t, c, sw.Id, done)

	r.Stop()
	os.Remove(filepath.Join(r.Dir, "dump.rdb"))
	without := finish(60)
	t.Logf("60 trials with redis %v, without %v", withRedis, without)
	if without > 2*withRedis+30*time.Second {
		t.Errorf("60 trials took %v with redis and %v without", withRedis, without)
	}
	began := time.Now()
	if b := leaderboard(t, c, sw.Id, ""); b.Source != "state" || len(b.Rows) != done {
		t.Errorf("with redis away: %d rows from %s", len(b.Rows), b.Source)
	}
	if d := time.Since(began); d > 30*time.Second {
		t.Errorf("with redis away the leaderboard took %v", d)
	}
	_, err = c.Raw().Sweeps.GetLeaderboard(background(t), connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: sw.Id, Source: "redis"}))
	if err == nil {
		t.Error("a redis that is away answered")
	}
	r.Start()
	agree(t, c, sw.Id, done)

	// Another leader goes on from what the last one wrote.
	gone := cl.waitLeader()
	gone.crash(t)
	finish(10)
	agree(t, c, sw.Id, done)

	// The board of another cluster, long gone, in its place.
	r.Do("HSET", "atelier:meta", "cluster", "c-stranger", "seen", "1")
	agree(t, c, sw.Id, done)
	until(t, "the status says that redis is there", func() bool {
		status, err := c.Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		return err == nil && status.Msg.Redis == "ok" && status.Msg.RedisIndex > 0
	})
}

// Two clusters on one prefix: the first keeps its board, the second says whose it
// is and answers from its state, until the first is gone.
func TestTwoClustersOnOnePrefix(t *testing.T) {
	r := coordinatortest.StartRedis(t)
	first := startProcess(t, t.TempDir(), "a", "--bootstrap", "--redis", r.Addr)
	one := client.New([]string{first.at.API})
	a := coordinatortest.NewAgent(t, raw(one), "w1")
	sw := raw(one).Create(t, spec(2, 2))
	a.Work(sw.Id)
	agree(t, one, sw.Id, 2)
	status := func(c *client.Client) *atelierv1.GetStatusResponse {
		resp, err := c.Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		return resp.Msg
	}
	holder := status(one).ClusterId

	second := startProcess(t, t.TempDir(), "b", "--bootstrap", "--redis", r.Addr)
	two := client.New([]string{second.at.API})
	until(t, "the second cluster says whose the prefix is", func() bool {
		return strings.Contains(status(two).Redis, "in use by cluster "+holder)
	})
	b := coordinatortest.NewAgent(t, raw(two), "w2")
	other := raw(two).Create(t, spec(2, 2))
	b.Work(other.Id)
	if l := leaderboard(t, two, other.Id, ""); l.Source != "state" || len(l.Rows) != 2 {
		t.Errorf("%d rows from %s", len(l.Rows), l.Source)
	}
	_, err := client.New([]string{second.at.API}, client.WithRetryFor(time.Millisecond)).Raw().Sweeps.GetLeaderboard(background(t),
		connect.NewRequest(&atelierv1.GetLeaderboardRequest{Id: other.Id, Source: "redis"}))
	if err == nil || !strings.Contains(err.Error(), holder) || !strings.Contains(err.Error(), "--redis-prefix") {
		t.Errorf("source redis: %v", err)
	}
	time.Sleep(2 * time.Second) // two looks of each
	agree(t, one, sw.Id, 2)
	if n := strings.Count(first.log.String(), "board rebuilt"); n != 1 {
		t.Errorf("the first cluster built its board %d times", n)
	}
	if text := second.log.String(); strings.Contains(text, "board rebuilt") || strings.Count(text, "in use by cluster") != 1 {
		t.Errorf("the second cluster wrote, or spoke more than once:\n%s", text)
	}

	first.kill()
	agree(t, two, other.Id, 2) // what the first left behind is taken over
}

// A Redis with a user and a password: from a file and from the environment
// neither shows anywhere; in the address it works, with a warning; and without it
// the refusal says what to do.
func TestRedisPassword(t *testing.T) {
	const secret = "s3cret/p@ss"
	r := coordinatortest.StartRedis(t, "--requirepass", "other", "--user", "board", "on", ">"+secret, "~atelier:*", "+@all")
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	user := "redis://board@" + r.Addr + "/0"
	status := func(p *process) string {
		resp, err := client.New([]string{p.at.API}).Raw().Cluster.GetStatus(background(t), connect.NewRequest(&atelierv1.GetStatusRequest{}))
		if err != nil {
			return err.Error()
		}
		return resp.Msg.Redis
	}
	const warning = "is on the command line"
	check := func(name string, p *process, want string, warns bool) {
		t.Helper()
		until(t, name+": "+want, func() bool { return strings.Contains(status(p), want) })
		if text := p.log.String() + status(p); strings.Contains(text, "s3cret") || strings.Contains(text, "p@ss") || strings.Contains(text, warning) != warns {
			t.Errorf("%s: warns %v, or the password shows:\n%s", name, warns, text)
		}
		p.kill()
	}
	check("file", startProcess(t, dir, "c1", "--bootstrap", "--redis", user, "--redis-password-file", file), "ok", false)
	check("none", startProcess(t, dir, "c1", "--redis", user), "--redis-password-file", false)
	check("wrong", startProcess(t, dir, "c1", "--redis", "redis://:wrong@"+r.Addr), "WRONGPASS", true)
	check("address", startProcess(t, dir, "c1", "--redis", "redis://board:"+url.QueryEscape(secret)+"@"+r.Addr+"/0"), "ok", true)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	open := launch(t, "--id", "c1", "--data", filepath.Join(dir, "c1"), "--redis", user, "--redis-password-file", file)
	if code := open.ends(t, "a password file that others can read"); code != 2 || !strings.Contains(open.log.String(), "chmod 600 "+file) {
		t.Errorf("a password file that others can read: exit %d\n%s", code, open.log)
	}
	t.Setenv("ATELIER_REDIS_PASSWORD", secret)
	check("environment", startProcess(t, dir, "c1", "--redis", user), "ok", false)
	t.Setenv("ATELIER_REDIS_PASSWORD", "")
	t.Setenv("ATELIER_COORDINATOR_REDIS", "redis://board:"+url.QueryEscape(secret)+"@"+r.Addr+"/0")
	check("address from the environment", startProcess(t, dir, "c1"), "ok", false)
}

// A Redis with TLS that wants certificates, and one by its unix socket: leaderboards come
// from there as from any other.
func TestRedisByTLSAndSocket(t *testing.T) {
	const password = "s3cret/p@ss"
	r := coordinatortest.StartTLSRedis(t, "board", password)
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	for id, flags := range map[string][]string{
		"tls":    {"--redis", "rediss://board@" + r.TLSAddr + "/1", "--redis-ca-file", r.CA, "--redis-cert-file", r.Cert, "--redis-key-file", r.Key},
		"socket": {"--redis", "unix://board@" + r.Socket + "?db=2"},
	} {
		p := startProcess(t, dir, id, append(flags, "--bootstrap", "--redis-password-file", file)...)
		c := client.New([]string{p.at.API})
		a := coordinatortest.NewAgent(t, raw(c), "w1")
		sw := raw(c).Create(t, spec(2, 2))
		a.Work(sw.Id)
		agree(t, c, sw.Id, 2)
		p.kill()
	}
}
