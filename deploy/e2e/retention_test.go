package e2e_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/client"
	"atelier/common/local"
	"atelier/common/trial"
)

// step of a scripted trainer: an epoch's metrics, then its checkpoint.
func step(epoch int, acc, size float64) string {
	return fmt.Sprintf(`say '{"event":"epoch","epoch":%[1]d,"metrics":{"val_acc":%[2]g,"size":%[3]g},"seconds":1}'
echo "weights of epoch %[1]d, $dir" > "$dir/%[1]d.pth"
say "{\"event\":\"checkpoint\",\"epoch\":%[1]d,\"path\":\"$dir/%[1]d.pth\",\"size\":$(wc -c < "$dir/%[1]d.pth"),\"sha256\":\"$(sha256sum < "$dir/%[1]d.pth" | cut -d' ' -f1)\",\"metrics\":{\"val_acc\":%[2]g}}"
sleep 0.3
`, epoch, acc, size)
}

// A worker keeps the files of the checkpoints that the index names, and no
// others, where more decides about the best than the values it saw itself.
func TestFilesOfIndexedCheckpointsStay(t *testing.T) {
	for name, x := range map[string]struct {
		spec, body string
		best       int32
	}{
		"a better one that meets no constraint": {"constraints: [{metric: size, max: 10}]\n",
			step(1, 0.5, 5) + step(2, 0.9, 50) + step(3, 0.8, 50), 1},
		"a later run's of the same epoch": {"",
			"if mkdir " + filepath.Join(t.TempDir(), "once") + " 2>/dev/null; then\n" + step(1, 0.5, 5) + step(2, 0.9, 5) + "kill -9 $$\nfi\n" +
				step(1, 0.5, 5) + step(2, 0.7, 5) + step(3, 0.6, 5) + step(4, 0.65, 5), 2},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1, ExtraArgs: map[string][]string{"worker": {"--trainers", scripted(t, x.body)}}})
			c := cluster.Client()
			id := submit(t, ctx, c, "search_method: random\nseed: 1\nobjective: {metric: val_acc, direction: maximize}\nbudget: {trials: 1}\ntrainer: scripted\n"+
				"space: {lr: {type: float, low: 0.001, high: 0.1}}\n"+x.spec)
			await(t, ctx, c, id, "the sweep has ended", ended)
			rows, _, err := c.Checkpoints(ctx, id, 0, client.From{})
			must(t, err)
			if !slices.ContainsFunc(rows, func(r trial.Checkpoint) bool { return r.Epoch == x.best }) {
				t.Fatalf("the index does not name epoch %d: %v", x.best, rows)
			}
			files := func() (all []string) {
				filepath.WalkDir(cluster.Workers[0].Dir, func(p string, _ fs.DirEntry, err error) error {
					if strings.HasSuffix(p, ".pth") {
						all = append(all, p)
					}
					return nil
				})
				return all
			}
			for len(files()) > len(rows) { // files are deleted beside the run
				if !sleep(ctx) {
					t.Fatalf("files that the index does not name stay: %v beside %v", files(), rows)
				}
			}
			for _, r := range rows {
				out, errs, code := atelier(t, ctx, cluster, "checkpoint", "pull", id, "1", "--epoch", fmt.Sprint(r.Epoch), "--to", t.TempDir())
				if b, err := os.ReadFile(strings.TrimSpace(out)); code != 0 || err != nil || int64(len(b)) != r.Size {
					t.Errorf("epoch %d: exit %d, %v: %s%s", r.Epoch, code, err, out, errs)
				}
			}
		})
	}
}

func sleep(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}
