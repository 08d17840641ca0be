package mlflow

import (
	"bytes"
	"math"
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

var names = []string{"plain", "two words", "yes", "null", "~", "12345678901234567890123456789012", "12345678e01234567890123456789012", "0b110", "1.5", ".5", "-", "- a", "-a", "-1",
	"a: b", "a:", "a #b", "#b", "it's", `say "no"`, "naïve façade", "日本", "line\nbreak", "tab\there", "", " lead", "trail ", "2020-01-01", "12:30:45", "0x1f", ".inf", "-.INF", ".nan", "!x", "&x", "*x",
	"[x]", "{x}", "%x", "@x", "`x", "|", ">", "? x", "=", "<<", "file:///a%20b/mlruns/0", "---", "...", "\u0085", "\u2028", "\U0001F600", "a\x7fb", "1_000", "0o7", "1e5", "Infinity", "y", "N", strings.Repeat("long ", 60) + "end"}

// PyYAML, which MLflow reads with, must read back what is written, and for
// ordinary values write the same bytes.
func TestMetaAsPyYAML(t *testing.T) {
	python, err := exec.LookPath("/usr/bin/python3")
	if err != nil || exec.Command(python, "-c", "import yaml").Run() != nil {
		t.Skip("no python3-yaml")
	}
	check := func(m map[string]any, script string) {
		t.Helper()
		cmd := exec.Command(python, "-c", script)
		cmd.Stdin = bytes.NewReader(encodeMeta(m))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s\n%s", err, out, encodeMeta(m))
		}
	}
	for _, n := range names {
		cmd := exec.Command(python, "-c", "import sys,yaml; sys.stdout.buffer.write(yaml.safe_load(sys.stdin.buffer.read().decode())['name'].encode())")
		cmd.Stdin = bytes.NewReader(encodeMeta(map[string]any{"name": n}))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if got, err := cmd.Output(); err != nil || string(got) != n {
			t.Errorf("%q was written as %q and read as %q: %v %s", n, encodeMeta(map[string]any{"name": n}), got, err, stderr.String())
		}
	}
	check(map[string]any{"artifact_uri": "file:///home/a%20b/mlruns/123456789012345678/00112233445566778899aabbccddeeff/artifacts", "deleted_time": nil, "end_time": int64(1700000000000), "entry_point_name": "",
		"experiment_id": "123456789012345678", "lifecycle_stage": "active", "run_id": "00112233445566778899aabbccddeeff", "run_name": "resnet18 ep50", "source_type": int64(4), "status": int64(3), "tags": []string{}, "user_id": "ada"}, `
import sys, yaml
text = sys.stdin.read()
again = yaml.dump(yaml.safe_load(text), default_flow_style=False, allow_unicode=True, sort_keys=True, Dumper=yaml.SafeDumper)
assert again == text, again`)
}

func TestMetaRoundTrip(t *testing.T) {
	for _, n := range names {
		m := map[string]any{"name": n, "experiment_id": "0", "creation_time": int64(5), "end_time": nil}
		got, err := decodeMeta(encodeMeta(m))
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%q: %v, %v", n, got, err)
		}
	}
}

func TestPythonNumbers(t *testing.T) {
	for want, v := range map[string]float64{"0.1": 0.1, "1.0": 1, "1e+16": 1e16, "1000000000000000.0": 1e15, "1.2345678901234568e+17": 123456789012345680, "0.0001": 1e-4, "1e-05": 1e-5, "nan": math.NaN(),
		"inf": math.Inf(1), "-inf": math.Inf(-1), "-0.0": math.Copysign(0, -1), "5e-324": 5e-324, "1.7976931348623157e+308": math.MaxFloat64, "0.30000000000000004": 0.30000000000000004} {
		if got := python(v); got != want {
			t.Errorf("%v is written %s, Python writes %s", v, got, want)
		}
		if got, err := parsePython(want); err != nil || math.Float64bits(got) != math.Float64bits(v) && !math.IsNaN(v) {
			t.Errorf("%s is read %v, %v", want, got, err)
		}
	}
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte("name: a\nexperiment_id: '1'\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("a: !!binary x\n? [1]\n: 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMeta(b)
		if err != nil {
			return
		}
		for k, v := range m {
			text(v)
			number(v)
			if s, ok := v.(string); ok && strings.ToValidUTF8(s, "") == s {
				again, err := decodeMeta(encodeMeta(map[string]any{"k": s}))
				if err != nil || again["k"] != s {
					t.Errorf("%q of %q was written and read as %v: %v", s, k, again, err)
				}
			}
		}
	})
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte("1700000000000 0.5 1\n1700000000001 nan 2\n"))
	f.Add([]byte("1 2\n1 2 3 4 5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		points, err := parseHistory(b)
		if err != nil {
			return
		}
		var again []byte
		for _, p := range points {
			again = appendPoint(again, entry{TimeMS: p.TimeMS, Value: p.Value, Step: p.Step})
		}
		got, err := parseHistory(again)
		if err != nil || len(got) != len(points) {
			t.Fatalf("%d points became %d: %v", len(points), len(got), err)
		}
		for i := range got {
			if got[i].Step != points[i].Step || got[i].TimeMS != points[i].TimeMS || !sameNumber(got[i].Value, points[i].Value) {
				t.Fatalf("%+v became %+v", points[i], got[i])
			}
		}
	})
}

func FuzzKey(f *testing.F) {
	for _, n := range names {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k := Key(s); CheckKey("metric", k) != nil {
			t.Errorf("Key(%q) = %q: %v", s, k, CheckKey("metric", k))
		}
	})
}

// sameNumber: equal, or both no number, or one infinite where a server that
// keeps none has the largest number in its place.
func sameNumber(a, b float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return math.IsInf(a, 0) && math.Abs(b) == math.MaxFloat64 && math.Signbit(a) == math.Signbit(b) ||
		math.IsInf(b, 0) && math.Abs(a) == math.MaxFloat64 && math.Signbit(a) == math.Signbit(b)
}
