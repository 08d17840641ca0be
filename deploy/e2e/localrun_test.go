package e2e_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// `make run` ends with a report and its charts for each sweep.
func TestLocalRunEndsWithReports(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := t.TempDir()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "atelier-local"), "--trainer", "sim", "--methods", "random", "--trials", "3", "--epochs", "2",
		"--coordinators", "1", "--workers", "1", "--dir", dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	report := filepath.Join(dir, "reports", "random")
	charts, _ := filepath.Glob(filepath.Join(report, "*.png"))
	summary, _ := filepath.Glob(filepath.Join(report, "diagnostics_summary.txt"))
	if len(charts) == 0 || len(summary) != 1 || !strings.Contains(string(out), "random: "+report+"/diagnostics_summary.txt and ") {
		t.Errorf("%q, %q\n%s", charts, summary, out)
	}
}
