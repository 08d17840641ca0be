// Package e2e holds tests of the whole: real coordinators, workers, Redis and
// simulated trainers as processes on this machine, killed, frozen and starved.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

var bin string // folder of the programs under test

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if bin = os.Getenv("ATELIER_BIN"); bin != "" {
			return m.Run() // programs built before
		}
		dir, err := os.MkdirTemp("", "atelier-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		bin = dir
		for name, pkg := range map[string]string{"atelier": "tuner", "atelier-coordinator": "coordinator", "atelier-worker": "worker", "atelier-local": "deploy/local/run"} {
			cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), "./"+pkg)
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Fprintf(os.Stderr, "build of %s: %v\n%s", name, err, out)
				return 1
			}
		}
		return m.Run()
	}())
}

func start(t *testing.T, ctx context.Context, cfg local.Config) *local.Cluster {
	t.Helper()
	cfg.Dir, cfg.BinDir = t.TempDir(), bin
	if _, err := exec.LookPath("redis-server"); err != nil && cfg.Redis {
		t.Skip("no redis-server: apt-get install redis-server")
	}
	cluster, err := local.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error("end of the cluster:", err)
		}
		if t.Failed() {
			showLogs(t, cluster)
		}
	})
	return cluster
}

func showLogs(t *testing.T, c *local.Cluster) {
	for _, p := range append(append([]*local.Process{}, c.Coordinators...), c.Workers...) {
		b, err := os.ReadFile(p.Log)
		if err != nil {
			continue
		}
		if len(b) > 4000 {
			b = b[len(b)-4000:]
		}
		t.Logf("-- end of the log of %s\n%s", p.Name, b)
	}
}

func submit(t *testing.T, ctx context.Context, c *client.Client, yaml string) string {
	t.Helper()
	s, _, err := c.Submit(ctx, client.Submission{Spec: yaml, Name: "spec.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

// await polls the sweep until ok says so.
func await(t *testing.T, ctx context.Context, c *client.Client, id, what string, ok func(*trial.Sweep) bool) *trial.Sweep {
	t.Helper()
	for {
		s, err := c.Sweep(ctx, id)
		if err != nil {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok(s) {
			return s
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never came: %s; sweep is %v with %v", what, s.Status, s.Counts)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func ended(s *trial.Sweep) bool {
	return s.Status.Over()
}

func trials(t *testing.T, ctx context.Context, c *client.Client, id string) []*trial.Trial {
	t.Helper()
	var all []*trial.Trial
	for x, err := range c.Trials(ctx, id, client.Which{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x)
	}
	return all
}

// atelier runs the command and returns its output, messages and exit code.
func atelier(t *testing.T, ctx context.Context, cluster *local.Cluster, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier"), args...)
	if cluster != nil {
		cmd.Env = append(os.Environ(), "ATELIER_ADDR="+strings.Join(cluster.APIAddrs(), ","))
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatalf("atelier %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
