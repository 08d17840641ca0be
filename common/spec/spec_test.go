package spec_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"atelier/common/spec"
)

// documents are all of testdata: a folder a version, written by tuner/sweep's
// tests and never changed after. Each must be read for ever.
func documents(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/v*/*.json")
	if err != nil || len(files) < 8 {
		t.Fatal(files, err)
	}
	out := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out[f] = strings.TrimSuffix(string(text), "\n")
	}
	return out
}

func TestEveryDocumentIsReadForEver(t *testing.T) {
	for file, text := range documents(t) {
		s, err := spec.Decode(text)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if s.Objective != s.Objectives[0] {
			t.Errorf("%s: objective %v", file, s.Objective)
		}
		again, err := spec.Decode(spec.Encode(s))
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s: written and read again it is another: %v", file, err)
		}
		if strings.HasPrefix(file, "testdata/v1/") && spec.Version == 1 && spec.Encode(s) != text {
			t.Errorf("%s is written otherwise:\n%s\nwas\n%s", file, spec.Encode(s), text)
		}
	}
}

func TestWhatIsNoDocument(t *testing.T) {
	good := `{"version":1,"objectives":[{"metric":"a","direction":"minimize"}],"space":[{"name":"x","type":"int","low":1,"high":2}]}`
	if _, err := spec.Decode(good); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ from, to, want string }{
		{good, "", "read spec"},
		{good, "null", "version 0"},
		{`"version":1`, `"version":2`, "version 2, this program reads 1 to 1: a newer program wrote it"},
		{`"version":1`, `"version":1,"patience":3`, `key "patience" is not known: a newer program wrote it`},
		{`"high":2`, `"high":2,"prior":3`, `key "prior" is not known`},
		{`"minimize"`, `"both"`, `direction is "both"`},
		{`"int"`, `"complex"`, `space[0] x: type is "complex"`},
		{`"low":1,`, ``, "no low"},
		{`"high":2`, `"high":2,"values":[null]`, "is not a value"},
		{`"high":2`, `"high":2,"values":[99999999999999999999]`, "out of range"},
		{good, good + "{}", "trailing|after top-level|follows"},
		{`[{"metric":"a","direction":"minimize"}]`, `[]`, "no objective"},
		{good, strings.Repeat(" ", spec.MaxSize) + good, "at most"},
	} {
		_, err := spec.Decode(strings.Replace(good, x.from, x.to, 1))
		found := false
		for _, want := range strings.Split(x.want, "|") {
			found = found || err != nil && strings.Contains(err.Error(), want)
		}
		if !found {
			t.Errorf("%.60s for %.60s: %v, want %q", x.to, x.from, err, x.want)
		}
	}
}

// Whatever the bytes, Decode gives a spec that is written and read again the
// same, or an error.
func FuzzDecode(f *testing.F) {
	for _, text := range documents(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := spec.Decode(text)
		if err != nil {
			return
		}
		once := spec.Encode(s)
		again, err := spec.Decode(once)
		if err != nil {
			t.Fatalf("%v: %s", err, once)
		}
		if twice := spec.Encode(again); twice != once {
			t.Fatalf("%s\nthen %s", once, twice)
		}
	})
}

// ReadYAML takes any text, and what it makes of it has a document.
func FuzzReadYAML(f *testing.F) {
	f.Add("space: {lr: {type: float, low: 1.0e-5, high: 1, log: true, steps: 4}, c: {type: categorical, choices: [1, 2.0, x, true], when: {lr: [1]}}}\n")
	f.Add("a: &a {type: int, values: [3, 1]}\nspace: {x: *a, y: {<<: *a, high: 9}}\npopulation: {share: 0.2}\n")
	f.Add("x: &x [*x]\nspace: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		first, _ := spec.Decode(`{"version":1,"search_method":"pbt","objectives":[{"metric":"a","direction":"minimize"}],"space":[],"stopping":{"rule":"segment","interval":2,"max_epochs":4}}`)
		second := *first
		spec.ReadYAML(first, text)
		spec.ReadYAML(&second, text)
		if a, b := spec.Encode(first), spec.Encode(&second); a != b {
			t.Fatalf("one text, two specs:\n%s\n%s", a, b)
		}
		if _, err := spec.Decode(spec.Encode(first)); err != nil {
			t.Fatal(err)
		}
	})
}
