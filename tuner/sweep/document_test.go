package sweep_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"atelier/common/spec"
	"atelier/tuner/sweep"
)

// The documents of testdata/running and of testdata/valid are in
// common/spec/testdata. What an old log holds of such a spec, its text beside the
// checked fields, is read as the same space and population.
func TestDocuments(t *testing.T) {
	files, _ := filepath.Glob("testdata/running/*.yaml")
	good, _ := filepath.Glob("testdata/valid/*.yaml")
	if len(files) < 8 || len(good) < 5 {
		t.Fatalf("%d and %d specs", len(files), len(good))
	}
	for _, file := range append(files, good...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, err := sweep.Parse(filepath.Base(file), text)
		if err != nil {
			t.Fatal(err)
		}
		s.SeedSet = false
		doc := spec.Encode(s)
		back, err := spec.Decode(doc)
		if err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s: %v\n%+v\n%+v", file, err, s, back)
			continue
		}
		old := *s
		old.Space.Params, old.Population = nil, nil
		spec.ReadYAML(&old, string(text))
		if !reflect.DeepEqual(&old, s) {
			t.Errorf("%s: an old log's is read as\n%s\nnot\n%s", file, spec.Encode(&old), doc)
		}
		golden := filepath.Join("../../common/spec/testdata/v1", strings.TrimSuffix(filepath.Base(file), ".yaml")+".json")
		if *update {
			if err := os.WriteFile(golden, []byte(doc+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if spec.Version == 1 && doc+"\n" != string(want) {
			t.Errorf("%s: it is written otherwise than before:\n%s", file, doc)
		}
	}
}
