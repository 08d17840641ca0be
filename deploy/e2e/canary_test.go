package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/access"
	"atelier/common/local"
	"atelier/common/mlflow/mlflowtest"
	"atelier/common/secret"
)

// canaries are secrets, by where they are given.
type canaries map[string]string

// random makes one; its characters are written differently in addresses and in base64.
func (c canaries) random(where string) string {
	b := make([]byte, 18)
	rand.Read(b)
	c[where] = "ca/" + base64.StdEncoding.EncodeToString(b) + "+ry"
	return c[where]
}

// token is a canary in the form of a token of a closed cluster.
func (c canaries) token(where string) string {
	c[where] = access.NewToken().Text()
	return c[where]
}

// sought are the ways in which a text may be written down: base64 also from within a longer text,
// which begins at any of three places.
func sought(text string) [][]byte {
	out := [][]byte{[]byte(hex.EncodeToString([]byte(text))), []byte(strings.ToUpper(hex.EncodeToString([]byte(text))))}
	for _, form := range secret.Forms(text) {
		out = append(out, []byte(form))
	}
	for skip := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			// Characters at both ends also depend on what stands beside the text.
			inner := e.EncodeToString(append(make([]byte, skip), text...))
			out = append(out, []byte(inner[4:len(inner)-4]))
		}
	}
	return out
}

// in names the canaries that a text has.
func (c canaries) in(text []byte) map[string]bool {
	found := map[string]bool{}
	for where, canary := range c {
		for _, form := range sought(canary) {
			if bytes.Contains(text, form) {
				found[where] = true
			}
		}
	}
	return found
}

// files looks into all of a folder, and returns in which files what was found.
func (c canaries) files(t *testing.T, dir string) (found map[string][]string, looked int) {
	t.Helper()
	found = map[string][]string{}
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for where := range c.in(b) {
			found[where] = append(found[where], path)
		}
		looked++
		return err
	}))
	return found, looked
}

// processes looks at the command lines of all processes, and at the environments of those whose
// command line has one of these words.
func (c canaries) processes(t *testing.T, words ...string) (found map[string][]string, looked int) {
	t.Helper()
	found = map[string][]string{}
	all, err := os.ReadDir("/proc")
	must(t, err)
	for _, p := range all {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + p.Name() + "/cmdline")
		if err != nil {
			continue // it has ended
		}
		for where := range c.in(line) {
			found[where] = append(found[where], "command line of process "+p.Name())
		}
		for _, word := range words {
			if !bytes.Contains(line, []byte(word)) {
				continue
			}
			environ, err := os.ReadFile("/proc/" + p.Name() + "/environ")
			if err != nil || len(environ) == 0 {
				continue // ended, or another one's
			}
			looked++
			for where := range c.in(environ) {
				found[where] = append(found[where], "environment of process "+p.Name())
			}
		}
	}
	return found, looked
}

// A secret in each place that takes one is found in no log, state, snapshot, Redis, MLflow, command
// line, environment of a trainer, error and last word of a crash. What is planted is found.
func TestCanaries(t *testing.T) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server: apt-get install redis-server")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Second)
	defer cancel()
	c := canaries{}
	secrets := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(secrets, name)
		must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
		return path
	}
	password, token := c.random("password of Redis"), c.random("token of MLflow")
	passwordFile := file("password", password)
	key := make([]byte, 32)
	rand.Read(key)
	c["gossip key"], c["gossip key, raw"] = base64.StdEncoding.EncodeToString(key), string(key)
	keyFile := file("gossip.key", c["gossip key"])

	place := t.TempDir()
	redis, err := local.StartRedis(ctx, place, false, "--rdbcompression", "no", "--user", "board", "on", "#"+fmt.Sprintf("%x", sha256.Sum256([]byte(password))), "~*", "+@all")
	must(t, err)
	defer redis.Kill()
	server := mlflowtest.New(t)
	server.Token = token
	hook := httptest.NewServer(http.NotFoundHandler()) // refuses: the attempts have errors
	defer hook.Close()
	state := filepath.Join(place, "state")
	env := []string{"XDG_STATE_HOME=" + state, "GOTRACEBACK=crash", "ATELIER_REDIS_PASSWORD=" + password, "MLFLOW_TRACKING_TOKEN=" + token,
		"MLFLOW_TRACKING_PASSWORD=" + c.random("password of MLflow"), "SERPAPI_API_KEY=" + c.random("SerpAPI key"), "ATELIER_TOKEN=" + c.token("token of Atelier"),
		"ATELIER_NOTIFY=" + hook.URL + "/" + c.random("webhook"), "MLFLOW_TRACKING_URI=" + server.URL}
	cluster := start(t, ctx, local.Config{Coordinators: 3, Workers: 2, Env: env, ExtraArgs: map[string][]string{
		"coordinator": {"--gossip-key-file", keyFile, "--redis", "redis://board@" + redis.Addr, "--log-level", "debug"},
		"worker":      {"--gossip-key-file", keyFile, "--log-level", "debug"},
		"c1":          {"--redis-password-file", passwordFile},
	}})
	spec := write(t, "canary.yaml", `
name: canary-control
search_method: random
seed: 3
budget: {trials: 6}
objective: {metric: val_loss, direction: minimize}
trainer: sim
space:
  lr: {type: float, low: 1.0e-4, high: 1.0e-1, log: true}
training: {epochs: 5, epoch_seconds: 0.2}
`)
	submit := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "sweep", "submit", spec, "--follow", "--mlflow")
	submit.Env = append(append(os.Environ(), env...), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
	var said bytes.Buffer
	submit.Stdout, submit.Stderr = &said, &said
	must(t, submit.Start())
	ended := make(chan error, 1)
	go func() { ended <- submit.Wait() }()
	trainers := 0
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-time.After(200 * time.Millisecond):
		}
		found, n := c.processes(t, "simtrainer")
		if len(found) > 0 {
			t.Fatalf("%v", found)
		}
		trainers += n
	}
	if err != nil || trainers == 0 {
		t.Fatalf("%v, %d trainers looked at\n%s", err, trainers, &said)
	}
	runs := server.Runs("architectural-style-tuning")
	if len(runs) != 7 {
		t.Errorf("%d runs in MLflow", len(runs))
	}
	fmt.Fprintf(&said, "%+v %q", runs, server.Problems())
	for _, args := range [][]string{{"sweep", "show", "@"}, {"sweep", "notify", "@"}, {"sweep", "list"}, {"cluster", "status"}, {"cluster", "snapshot", filepath.Join(place, "backup.snap")}} {
		out, errs, code := atelier(t, ctx, cluster, args...)
		if fmt.Fprintln(&said, out, errs); code != 0 {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
	if !strings.Contains(said.String(), "redis") || strings.Contains(said.String(), "WRONGPASS") {
		t.Errorf("Redis does not take the password:\n%s", &said)
	}
	must(t, redis.Save(ctx))

	// A crash with all that Go can tell of its goroutines.
	last := cluster.Coordinators[2]
	must(t, last.Signal(syscall.SIGABRT))
	last.Wait()
	if b, err := os.ReadFile(last.Log); err != nil || !bytes.Contains(b, []byte("goroutine 1")) {
		t.Errorf("%s left no trace: %v", last.Name, err)
	}

	if found := c.in(said.Bytes()); len(found) > 0 {
		t.Errorf("%v are said in\n%s", found, &said)
	}
	found, looked := c.files(t, cluster.Dir)
	beside, _ := c.files(t, place) // Redis, the snapshot, MLflow's journals
	for where, files := range beside {
		found[where] = append(found[where], files...)
	}
	// The address of a webhook is the one secret that the cluster keeps for itself, as a part of the sweep.
	// That it is found in each raft log and in the snapshot shows that the search sees these.
	for _, f := range found["webhook"] {
		if !strings.Contains(f, "/raft/") && !strings.HasSuffix(f, "/backup.snap") {
			t.Errorf("the webhook is in %s", f)
		}
	}
	if len(found["webhook"]) < 4 || looked < 20 {
		t.Errorf("the search sees too little: %d files, the webhook in %v", looked, found["webhook"])
	}
	delete(found, "webhook")
	for where, files := range found {
		t.Errorf("%s is in %v", where, files)
	}
	dump, err := os.ReadFile(filepath.Join(redis.Dir, "dump.rdb"))
	if err != nil || !bytes.Contains(dump, []byte("val_loss")) {
		t.Errorf("the search does not see the rows in Redis: %v", err)
	}
	control(t, c)
}

// control plants a canary, in three places and three forms, and finds it.
func control(t *testing.T, c canaries) {
	t.Helper()
	planted := canaries{}
	text := planted.random("planted")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "log"), []byte(`{"auth":"`+base64.StdEncoding.EncodeToString([]byte("ada:"+text))+`"}`), 0o600))
	if found, n := planted.files(t, dir); len(found["planted"]) != 1 || n != 1 {
		t.Errorf("not found in a file: %v", found)
	}
	word := "planted-" + strconv.Itoa(os.Getpid())
	cmd := exec.Command("sleep", "60")
	cmd.Args = []string{word, "60"}
	cmd.Env = []string{"A=" + secret.Forms(text)[0]}
	must(t, cmd.Start())
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	shown := exec.Command("sleep", "60")
	shown.Args = []string{"--password=" + text, "60"}
	must(t, shown.Start())
	defer func() { shown.Process.Kill(); shown.Wait() }()
	if found, n := planted.processes(t, word); len(found["planted"]) != 2 || n != 1 {
		t.Errorf("of a command line and an environment, found %v", found)
	}
	if len(c.in([]byte("nothing"))) != 0 {
		t.Error("found where nothing is")
	}
}

// Whatever goes wrong with a neighbour, its secret is in no word of it.
func TestCanariesInErrors(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := canaries{}
	dir := t.TempDir()
	// It repeats what it is sent.
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprintf(w, `{"error":"%s %s %s %s %q"}`, r.URL.Query().Get("api_key"), r.Header.Get("Authorization"), user, password, r.URL)
	}))
	defer echo.Close()
	escaped := func(text string) string { return strings.NewReplacer("/", "%2F", "+", "%2B", "=", "%3D").Replace(text) }
	var said strings.Builder
	run := func(env []string, says, program string, args ...string) {
		t.Helper()
		one, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(one, filepath.Join(bin, program), args...)
		cmd.Dir, cmd.Env = dir, append(append(os.Environ(), "XDG_STATE_HOME="+dir, "XDG_CONFIG_HOME="+dir), env...)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), says) {
			t.Errorf("%s %v does not say %q:\n%s", program, args, says, out)
		}
		fmt.Fprintf(&said, "%s %s\n%s\n", program, args[0], out)
	}
	open := filepath.Join(dir, "open")
	must(t, os.WriteFile(open, []byte(c.random("open file")), 0o644))
	node := []string{"--id", "a", "--data", filepath.Join(dir, "a"), "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}
	inside := c.random("address in the environment")
	run([]string{"ATELIER_COORDINATOR_REDIS=redis://u:" + escaped(inside) + "@127.0.0.1:1"}, "--redis", "atelier-coordinator", "--help")
	run([]string{"ATELIER_COORDINATOR_REDIS=redis://u:" + escaped(inside) + "@127.0.0.1:1/x"}, "is not a URL", "atelier-coordinator", node...)
	run([]string{"ATELIER_COORDINATOR_REDIS=redis://u:" + inside + "@127.0.0.1:1"}, "escaped", "atelier-coordinator", node...)
	run([]string{"ATELIER_COORDINATOR_REDIS=redis://u:" + escaped(inside) + "@127.0.0.1:1", "ATELIER_REDIS_PASSWORD=" + c.random("another password")}, "different passwords", "atelier-coordinator", node...)
	run(nil, "chmod 600", "atelier-coordinator", append(node, "--redis", "127.0.0.1:1", "--redis-password-file", open)...)
	run(nil, "chmod 600", "atelier-coordinator", append(node, "--gossip-key-file", open)...)
	run(nil, "chmod 600", "atelier-worker", "--data", filepath.Join(dir, "w"), "--addr", "127.0.0.1:1", "--gossip-key-file", open)
	run([]string{"SERPAPI_API_KEY=" + c.random("SerpAPI key")}, "502", "atelier", "data", "scrape", "raw", "--class", "gothic", "--dry-run", "--endpoint", echo.URL)
	run([]string{"SERPAPI_API_KEY=" + c.random("SerpAPI key, nobody there")}, "refused", "atelier", "data", "scrape", "raw", "--class", "gothic", "--dry-run", "--endpoint", "http://127.0.0.1:1")
	run(nil, "chmod 600", "atelier", "data", "scrape", "raw", "--class", "gothic", "--key-file", open)

	// An unreachable Redis and one that refuses, in the log and in the status.
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("no redis-server: apt-get install redis-server")
	}
	redis, err := local.StartRedis(ctx, dir, false)
	must(t, err)
	defer redis.Kill()
	wrong := filepath.Join(dir, "wrong-password")
	for addr, says := range map[string]string{"redis://u@127.0.0.1:1": "refused", "redis://u@" + redis.Addr: "WRONGPASS", "rediss://u@" + redis.Addr: "TLS"} {
		must(t, os.WriteFile(wrong, []byte(c.random("password for "+addr)), 0o600))
		d := startDaemon(t, "atelier-coordinator", "--id", "a", "--bootstrap", "--redis", addr, "--redis-password-file", wrong, "--log-level", "debug")
		at := d.address(t, ctx, "api")
		cluster := "ATELIER_ADDR=" + at
		for { // until the leader has asked Redis
			cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), "cluster", "status")
			cmd.Env = append(os.Environ(), cluster)
			out, _ := cmd.CombinedOutput()
			fmt.Fprintf(&said, "%s\n", out)
			if strings.Contains(string(out), says) {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: no word of %s in\n%s", addr, says, out)
			}
			time.Sleep(200 * time.Millisecond)
		}
		if says == "WRONGPASS" { // the cluster for what commands say
			spec := write(t, "s.yaml", "search_method: random\nbudget: {trials: 1}\nobjective: {metric: val_loss, direction: minimize}\ntrainer: sim\nspace:\n  lr: {type: float, low: 0.1, high: 1}\ntraining: {epochs: 1}\n")
			run([]string{cluster, "ATELIER_NOTIFY=ftp://h/" + c.random("webhook")}, "http://", "atelier", "sweep", "submit", spec)
			run([]string{cluster}, "s-", "atelier", "sweep", "submit", spec)
			export := []string{"sweep", "export-mlflow", "@"}
			run([]string{cluster, "MLFLOW_TRACKING_TOKEN=" + c.random("token of MLflow"), "MLFLOW_TRACKING_URI=" + echo.URL}, "502", "atelier", export...)
			run([]string{cluster, "MLFLOW_TRACKING_URI=" + strings.Replace(echo.URL, "//", "//ada:"+escaped(c.random("tracking URI"))+"@", 1)}, "502", "atelier", export...)
			run([]string{cluster, "MLFLOW_TRACKING_TOKEN_FILE=" + open}, "chmod 600", "atelier", append(export, "--mlflow-uri", echo.URL)...)
			// On a command line others see it; the command says so, and does not show it.
			run([]string{cluster}, "on the command line", "atelier", append(export, "--mlflow-uri", "http://ada:"+escaped(c.random("tracking URI on the command line"))+"@127.0.0.1:1")...)
		}
		d.cmd.Process.Signal(syscall.SIGABRT)
		d.cmd.Wait()
		fmt.Fprintf(&said, "%s\n", &d.log)
	}
	for where := range c.in([]byte(said.String())) {
		t.Errorf("%s is said in\n%s", where, &said)
	}
	must(t, os.Remove(open))
	must(t, os.Remove(wrong))
	if found, n := c.files(t, dir); len(found) > 0 || n == 0 { // data folders, Redis's log, MLflow's journals
		t.Errorf("%d files, found %v", n, found)
	}
}
