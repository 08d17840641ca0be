package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/access"
)

// ownCluster is a closed cluster of one coordinator, on the loopback of this machine, begun by a user
// whose home is home.
type ownCluster struct {
	t              *testing.T
	ctx            context.Context
	dir, home, api string
	log            lockedBuffer
	stop           func()
}

func beginOwn(t *testing.T, ctx context.Context) *ownCluster {
	t.Helper()
	c := &ownCluster{t: t, ctx: ctx, dir: t.TempDir(), home: t.TempDir()}
	c.start("127.0.0.1:0")
	return c
}

// start starts the coordinator, and waits until it serves.
func (c *ownCluster) start(api string) {
	c.t.Helper()
	file := filepath.Join(c.dir, "address.json")
	os.Remove(file)
	cmd := exec.Command(filepath.Join(bin, "atelier-coordinator"), "--id", "c1", "--data", filepath.Join(c.dir, "c1"), "--bootstrap", "--tls",
		"--api", api, "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--address-file", file)
	cmd.Env = []string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH")}
	cmd.Stderr = &c.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(c.t, cmd.Start())
	c.stop = func() {
		if cmd.ProcessState == nil {
			cmd.Process.Signal(syscall.SIGTERM)
			cmd.Wait()
		}
	}
	c.t.Cleanup(func() { c.stop() })
	for c.ctx.Err() == nil {
		var at struct{ API string }
		if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &at) == nil {
			c.api = at.API
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Fatalf("the coordinator does not serve:\n%s", &c.log)
}

// as runs a command as the user of a home, with variables besides.
func (c *ownCluster) as(home string, env []string, args ...string) (stdout, stderr string, code int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.ctx, filepath.Join(bin, "atelier"), args...)
	cmd.Env = append([]string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, env...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must wants a command to succeed, and returns what it prints.
func (c *ownCluster) must(home string, env []string, args ...string) string {
	c.t.Helper()
	out, errs, code := c.as(home, env, args...)
	if code != 0 {
		c.t.Fatalf("atelier %s: exit %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// refused wants exit code 4, and words.
func (c *ownCluster) refused(home string, env []string, words string, args ...string) {
	c.t.Helper()
	out, errs, code := c.as(home, env, args...)
	if code != 4 || !strings.Contains(strings.Join(strings.Fields(errs), " "), words) {
		c.t.Errorf("atelier %s: exit %d: %s%s, want 4 and %q", strings.Join(args, " "), code, out, errs, words)
	}
}

// Who begins a closed cluster on this machine needs to do nothing; another user gets nothing without a token, and with
// one what its role allows; what they change is listed under their names.
func TestPeopleOfAClosedCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := beginOwn(t, ctx)
	addr := []string{"ATELIER_ADDR=" + c.api}
	if out := c.must(c.home, addr, "--retry-for", "30s", "cluster", "status"); !strings.Contains(out, "c1") {
		t.Errorf("the user that began it sees %s", out)
	}
	stranger := t.TempDir()
	if _, errs, code := c.as(stranger, addr, "--retry-for", "1s", "sweep", "list"); code == 0 || !strings.Contains(errs, "closed") {
		t.Errorf("another user: exit %d: %s", code, errs)
	}

	// A token for her, which she logs in with once she has compared the fingerprint.
	shown := c.must(c.home, addr, "context", "show", "-o", "json")
	fingerprint := regexp.MustCompile(`"fingerprint": "([0-9a-f]{64})"`).FindStringSubmatch(shown)
	if fingerprint == nil {
		t.Fatalf("context show: %s", shown)
	}
	token := filepath.Join(stranger, "ada.token")
	if out := c.must(c.home, addr, "token", "create", "ada", "--role", "viewer", "--out", token); out != "" {
		t.Errorf("token create --out prints %s", out)
	}
	secret, err := os.ReadFile(token)
	must(t, err)
	if info, err := os.Stat(token); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", info.Mode(), err)
	}
	if _, errs, code := c.as(stranger, nil, "login", c.api, "--token-file", token); code != 2 || !strings.Contains(errs, fingerprint[1]) {
		t.Errorf("login without a fingerprint: exit %d: %s", code, errs)
	}
	c.refused(stranger, nil, "another cluster, or another program", "login", c.api, "--token-file", token, "--fingerprint", strings.Repeat("0", 64))
	c.refused(stranger, []string{"ATELIER_TOKEN=" + access.NewToken().Text()}, "does not know it", "login", c.api, "--fingerprint", fingerprint[1])
	c.must(stranger, nil, "login", c.api, "--token-file", token, "--fingerprint", fingerprint[1], "--name", "lab")
	kept := filepath.Join(stranger, ".config", "atelier", "config.yaml")
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the contexts: %v, %v", info.Mode(), err)
	}
	c.must(stranger, nil, "sweep", "list")
	c.must(stranger, addr, "sweep", "list") // the address says which context it is
	spec := filepath.Join(stranger, "spec.yaml")
	must(t, os.WriteFile(spec, []byte("name: x\nsearch_method: random\nobjective: {metric: loss, direction: minimize}\nbudget: {trials: 2}\ntrainer: external\nspace: {x: {type: float, low: 0, high: 1}}\n"), 0o600))
	c.refused(stranger, nil, "ada has the role viewer, and CreateSweep needs operator: an admin makes such a token: atelier token create NAME --role operator", "sweep", "submit", spec)
	c.refused(stranger, nil, "needs admin", "token", "list")

	// With another token of hers, in the environment, she may.
	op := []string{"ATELIER_TOKEN=" + strings.TrimSpace(c.must(c.home, addr, "token", "create", "ada-op", "--role", "operator"))}
	id := strings.TrimSpace(c.must(stranger, op, "sweep", "submit", spec))

	// A program trains one trial with a credential that reaches no other.
	credential := filepath.Join(stranger, "trial.credential")
	c.must(stranger, op, "trial", "ask", id, "--credential-file", credential)
	c.must(stranger, op, "trial", "ask", id)
	text, err := os.ReadFile(credential)
	must(t, err)
	one := []string{"ATELIER_TOKEN=" + strings.TrimSpace(string(text))}
	c.must(stranger, one, "trial", "tell", id, "1", "--epoch", "1", "--metric", "loss=0.5")
	c.refused(stranger, one, "for trial 1 of sweep", "trial", "tell", id, "2", "--epoch", "1", "--metric", "loss=0.5")
	c.refused(stranger, one, "needs operator", "sweep", "cancel", id)
	c.must(stranger, op, "sweep", "cancel", id)

	// A machine joins by what an admin pastes, once; and not by what was revoked.
	invited := strings.Fields(c.must(c.home, addr, "cluster", "invite", "--name", "w1"))
	joins := func(name string, words []string) *daemon {
		return startDaemon(t, words[0], "--name", name, "--join", words[len(words)-1])
	}
	joins("w1", invited).says(t, ctx, "serves a cluster")
	joins("w2", invited).says(t, ctx, "has been used, by w1")
	taken := c.must(c.home, addr, "cluster", "invite", "-o", "json", "--uses", "3")
	ended := regexp.MustCompile(`"id": "(i-[a-z0-9]+)"`).FindStringSubmatch(taken)
	whole := regexp.MustCompile(`"invitation": "([^"]+)"`).FindStringSubmatch(taken)
	if ended == nil || whole == nil {
		t.Fatalf("cluster invite -o json: %s", taken)
	}
	c.must(c.home, addr, "cluster", "uninvite", ended[1])
	joins("w3", []string{"atelier-worker", whole[1]}).says(t, ctx, "was revoked")
	if list := c.must(c.home, addr, "cluster", "invites"); !regexp.MustCompile(`worker +w1 +used +1/1 .* w1`).MatchString(list) || !regexp.MustCompile(ended[1]+` +worker +any +revoked +0/3`).MatchString(list) {
		t.Errorf("the invitations:\n%s", list)
	}

	c.must(c.home, addr, "token", "revoke", "ada")
	c.refused(stranger, nil, "(ada) was revoked", "sweep", "list")
	list := c.must(c.home, addr, "cluster", "audit")
	for _, want := range []string{`first-admin +create token of viewer +ada `, `ada-op +create sweep +` + id, `ada-op +cancel sweep +` + id, `first-admin +revoke token`} {
		if !regexp.MustCompile(want).MatchString(list) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	// Refusals are listed within seconds.
	for !strings.Contains(list, "ada has the role viewer") {
		if ctx.Err() != nil {
			t.Fatalf("what was refused is not listed:\n%s", list)
		}
		time.Sleep(200 * time.Millisecond)
		list = c.must(c.home, addr, "cluster", "audit", "-o", "csv")
	}
	for _, s := range []string{string(secret), string(text), strings.TrimPrefix(op[0], "ATELIER_TOKEN=")} {
		if strings.Contains(c.log.String(), strings.TrimSpace(s)[20:]) {
			t.Error("a secret is in the coordinator's log")
		}
	}
}
