package history_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	checkedspec "atelier/common/spec"
	"atelier/coordinator/history"
	"atelier/coordinator/state"
)

// begin makes a sweep of a document and asks its method for the first trials.
func begin(t *testing.T, document string) error {
	t.Helper()
	m := state.New()
	if r := m.Apply(1, &logv1.Entry{Commands: []*logv1.Command{{Op: &logv1.Command_CreateSweep{CreateSweep: &logv1.CreateSweep{Id: "s-a", SpecJson: document}}}}})[0]; r.Err != nil {
		return r.Err
	}
	s, _ := m.View().Sweep("s-a")
	method, err := history.Method(s, s.Budget)
	if err != nil {
		return err
	}
	p, err := method.Propose(t.Context(), nil, 2)
	if err == nil && len(p.Points) != 2 {
		err = fmt.Errorf("%d trials proposed", len(p.Points))
	}
	return err
}

// What was submitted once is searched for ever: whatever checks of new specs become,
// a sweep of an old document begins.
func TestEveryDocumentIsSearchedForEver(t *testing.T) {
	files, err := filepath.Glob("../../common/spec/testdata/v*/*.json")
	if err != nil || len(files) < 18 {
		t.Fatalf("%d documents: %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := begin(t, strings.TrimSpace(string(text))); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// A space that nobody may submit, as one of before a check that came later, is
// searched all the same.
func TestRefusedSpaceIsSearched(t *testing.T) {
	var many []string
	for i := range 1001 {
		many = append(many, fmt.Sprintf(`{"name":"p%d","type":"float","low":0,"high":1}`, i))
	}
	for what, params := range map[string]string{
		"too many parameters": strings.Join(many, ","),
		"a choice twice":      `{"name":"a","type":"categorical","choices":["x","x","y"]},{"name":"b","type":"float","low":0,"high":1}`,
		"a step on a log":     `{"name":"a","type":"float","low":0.1,"high":1,"log":true,"step":0.3}`,
		"values and a step":   `{"name":"a","type":"int","low":1,"high":9,"step":2,"values":[1,5,9]}`,
	} {
		for _, method := range []string{"random", "sobol", "genetic", "bayesian"} {
			document := fmt.Sprintf(`{"version":1,"search_method":%q,"trainer":"sim","parallelism":2,"budget":{"trials":9},"objectives":[{"metric":"loss","direction":"minimize"}],"space":[%s]}`, method, params)
			s, err := checkedspec.Decode(document)
			if err != nil {
				t.Fatal(err)
			}
			if s.Space.Validate() == nil {
				t.Errorf("%s: it shows nothing: the space can be submitted", what)
			}
			if err := begin(t, document); err != nil {
				t.Errorf("%s, %s: %v", what, method, err)
			}
		}
	}
}
