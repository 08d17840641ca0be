package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/local"
)

// The data of a sweep changes between its trials: every view of it says which
// trials differ; one at another size of the same files does not.
func TestDataThatChanges(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	trainers := scripted(t, `n=$(printf '%s' "$job" | sed 's/.*"trial":\([0-9]*\).*/\1/')
data=aaaa.bbbb@64:cccc
[ "$n" = 2 ] && data=aaaa.dddd@64:eeee
[ "$n" = 3 ] && data=aaaa.bbbb@96:ffff
say "{\"event\":\"epoch\",\"epoch\":1,\"metrics\":{\"val_acc\":0.$n},\"seconds\":1,\"data\":\"$data\"}"
say "{\"event\":\"epoch\",\"epoch\":2,\"metrics\":{\"val_acc\":0.$n},\"seconds\":1}"`)
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--trainers", trainers}}})
	id := submit(t, ctx, cluster.Client(), "search_method: random\nseed: 1\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 3}\nparallelism: 1\ntrainer: scripted\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\n")
	await(t, ctx, cluster.Client(), id, "the sweep has ended", ended)
	const said = "trial 2 had other data than the sweep's first run"
	look := func() {
		t.Helper()
		report := t.TempDir()
		for _, args := range [][]string{{"sweep", "show", id}, {"leaderboard", id}, {"trial", "list", id}, {"sweep", "report", id, "--out", report}} {
			out, errs, code := atelier(t, ctx, cluster, args...)
			if code != 0 || args[1] != "report" && !strings.Contains(errs, said) {
				t.Errorf("%q: exit %d\n%s%s", args, code, out, errs)
			}
		}
		b, err := os.ReadFile(filepath.Join(report, "diagnostics_summary.txt"))
		if err != nil || !strings.Contains(string(b), said) {
			t.Errorf("report: %v\n%s", err, b)
		}
		for n, want := range map[string]bool{"1": false, "2": true, "3": false} {
			if out, _, _ := atelier(t, ctx, cluster, "trial", "show", id, n); strings.Contains(out, "other data") != want || !strings.Contains(out, "aaaa.") {
				t.Errorf("trial %s:\n%s", n, out)
			}
		}
	}
	look()
	// A coordinator that starts anew knows it too, from its log or a snapshot.
	snapshot := filepath.Join(t.TempDir(), "s")
	must0(t, ctx, cluster, "cluster", "snapshot", snapshot)
	must0(t, ctx, cluster, "cluster", "restore", snapshot, "--yes")
	look()
}
