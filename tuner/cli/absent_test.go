package cli_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// A file that is not there: the nearest one is named, and the exit code says that
// something is missing.
func TestAbsentFiles(t *testing.T) {
	start(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "specs/facades.yaml"), []byte(spec))
	write(t, filepath.Join(dir, "training.yaml"), []byte("epochs: 3\n"))
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"sweep", "submit", "specs/facade.yaml"}, "specs/facade.yaml: no such file; did you mean specs/facades.yaml?"},
		{[]string{"sweep", "submit", "specs/nope.yaml"}, "did you mean specs/facades.yaml?"},
		{[]string{"sweep", "submit", "spec/nope.yaml"}, "there is no folder spec"},
		{[]string{"sweep", "resume", "s-aaaaaaaa", "specs/facade.yml"}, "did you mean specs/facades.yaml?"},
		{[]string{"sweep", "simulate", "specs/facade.yml", "--exec", "true"}, "did you mean specs/facades.yaml?"},
		{[]string{"train", "--config", "nope.yaml"}, "did you mean training.yaml?"},
		{[]string{"tune", "--config", "trainin.yaml"}, "did you mean training.yaml?"},
		{[]string{"infer", "--config", "trainin.yaml"}, "did you mean training.yaml?"},
	} {
		if r := run(t, dir, x.args...); r.code != 3 || !strings.Contains(r.err, x.want) || r.out != "" {
			t.Errorf("%q: exit %d, %s", x.args, r.code, r.err)
		}
	}
}
