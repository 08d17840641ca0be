package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"atelier/common/space"
	"atelier/deploy/bench/search/suite"
	"atelier/tuner/search"
)

// serve answers trials as `atelier sweep simulate --exec` asks them.
func serve(in io.Reader, out io.Writer, name string, seed uint64) error {
	problems := chosen(suite.All(), []string{name})
	if len(problems) != 1 {
		return fmt.Errorf("-serve %q: want the name of one problem", name)
	}
	f := problems[0].Variant(seed)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var q struct {
			Trial  int64
			Params json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			return err
		}
		p, err := problems[0].Space.Decode(string(q.Params))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "{\"trial\":%d,\"value\":%v}\n", q.Trial, f(p)); err != nil {
			return err
		}
	}
	return lines.Err()
}

// outward runs the program that people run, on a problem of each kind, and
// holds its trials to those measured in this process.
func (b *bench) outward(ctx context.Context, problems []suite.Problem) error {
	const trials, seed = 40, firstSeed
	self, err := os.Executable()
	if err != nil {
		return err
	}
	compared, kinds := 0, map[string]bool{} // looked up only
	for _, p := range problems {
		if kinds[p.Kind] {
			continue
		}
		kinds[p.Kind] = true
		for _, m := range []struct{ method, algorithm string }{{search.Random, ""}, {search.Sobol, ""}, {search.Genetic, ""}, {search.Bayesian, search.TPE}, {search.Bayesian, search.GP}, {search.Bayesian, search.CMAES}} {
			file := filepath.Join(b.Dir, "spec.yaml")
			if err := os.WriteFile(file, []byte(spec(p.Space, m.method, m.algorithm, trials, seed)), 0o644); err != nil {
				return err
			}
			cmd := exec.CommandContext(ctx, b.atelier, "sweep", "simulate", file, "--exec", fmt.Sprintf("%s -serve %s -seed %d", self, p.Name, seed))
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			text, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("sweep simulate on %s: %w: %s", p.Name, err, stderr.String())
			}
			method, err := search.New(m.method, m.algorithm, search.Problem{Space: p.Space, Seed: seed, Budget: trials, Parallelism: 1})
			if err != nil {
				return err
			}
			points, _, err := sweepOf(ctx, method, p.Variant(seed), trials, 1)
			if err != nil {
				return err
			}
			rows := strings.Split(strings.TrimSpace(string(text)), "\n")
			if len(rows) != len(points) {
				return fmt.Errorf("sweep simulate on %s, %s %s: %d trials, %d in process", p.Name, m.method, m.algorithm, len(rows), len(points))
			}
			for i, row := range rows {
				var r struct{ Params json.RawMessage }
				if err := json.Unmarshal([]byte(row), &r); err != nil {
					return err
				}
				if want := p.Space.Encode(points[i]); string(r.Params) != want {
					return fmt.Errorf("sweep simulate on %s, %s %s: trial %d is %s, in process %s", p.Name, m.method, m.algorithm, i+1, r.Params, want)
				}
				compared++
			}
		}
	}
	b.Printf("\n`sweep simulate` proposed the same points: %d trials compared\n", compared)
	return nil
}

// spec writes a space as a sweep's YAML. JSON is YAML.
func spec(s *space.Space, method, algorithm string, trials int, seed uint64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name: suite\nsearch_method: %s\nseed: %d\nobjective: {metric: value, direction: minimize}\nbudget: {trials: %d}\n", method, seed, trials)
	if algorithm != "" {
		fmt.Fprintf(&b, "algorithm: %s\n", algorithm)
	}
	b.WriteString("space:\n")
	for i := range s.Params {
		p := &s.Params[i]
		switch {
		case p.Kind == space.KindCategorical:
			fmt.Fprintf(&b, "  %s: {type: categorical, choices: %s", p.Name, values(p.Choices))
		case len(p.Values) > 0:
			fmt.Fprintf(&b, "  %s: {type: %s, values: %s", p.Name, p.Kind, values(p.Values))
		default:
			fmt.Fprintf(&b, "  %s: {type: %s, low: %s, high: %s", p.Name, p.Kind, bound(p, p.Low), bound(p, p.High))
		}
		if p.Log && p.Kind != space.KindCategorical {
			b.WriteString(", log: true")
		}
		if len(p.When) > 0 {
			var parts []string
			for _, w := range p.When {
				parts = append(parts, fmt.Sprintf("%s: %s", w.Parent, values(w.Any)))
			}
			fmt.Fprintf(&b, ", when: {%s}", strings.Join(parts, ", "))
		}
		b.WriteString("}\n")
	}
	return b.String()
}

func bound(p *space.Parameter, f float64) string {
	if p.Kind == space.KindInt {
		return fmt.Sprint(int64(f))
	}
	return space.Float(f).String()
}

func values(list []space.Value) string {
	var parts []string
	for _, v := range list {
		parts = append(parts, v.String())
	}
	return "[" + strings.Join(parts, ", ") + "]"
}
