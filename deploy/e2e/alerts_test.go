package e2e_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"atelier/common/local"
	"atelier/deploy/docs"
)

// The alerts of the operator's page are rules of Prometheus on metrics that the
// programs have. Where promtool is installed it checks them too.
func TestAlerts(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	text, err := os.ReadFile("../docs/operate.md")
	must(t, err)
	blocks, err := docs.Blocks(string(text))
	must(t, err)
	dir, files := t.TempDir(), map[string]string{}
	for _, b := range blocks {
		if name := b.Words["file"]; strings.HasSuffix(name, ".yml") {
			files[name] = b.Text
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(b.Text), 0o644))
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations struct{ Summary string }
			}
		}
	}
	must(t, yaml.Unmarshal([]byte(files["alerts.yml"]), &rules))

	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 1})
	// Some metrics appear with the first run that has ended.
	id := submit(t, ctx, cluster.Client(), "search_method: random\nseed: 1\nobjective: {metric: val_loss, direction: minimize}\nbudget: {trials: 1}\ntrainer: sim\n"+
		"space: {lr: {type: float, low: 0.001, high: 0.1}}\ntraining: {epochs: 1}\n")
	await(t, ctx, cluster.Client(), id, "the sweep has ended", ended)
	var shown strings.Builder
	for _, p := range []*local.Process{cluster.Coordinators[0], cluster.Workers[0]} {
		resp, err := http.Get("http://" + p.Addr + "/metrics")
		must(t, err)
		io.Copy(&shown, resp.Body)
		resp.Body.Close()
	}
	metric := regexp.MustCompile(`\batelier_[a-z_]+`)
	checked := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Annotations.Summary == "" {
				t.Errorf("%+v", r)
			}
			for _, name := range metric.FindAllString(r.Expr, -1) {
				checked++
				if !strings.Contains(shown.String(), "\n"+name+" ") && !strings.Contains(shown.String(), "\n"+name+"{") {
					t.Errorf("%s: no program has the metric %s", r.Alert, name)
				}
			}
		}
	}
	if checked < 8 {
		t.Errorf("%d metrics in rules", checked)
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"check", "config", "prometheus.yml"}} {
			cmd := exec.CommandContext(ctx, promtool, args...)
			cmd.Dir = dir
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("promtool %v: %v\n%s", args, err, out)
			}
		}
	}
}
