package cli_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// What a person types for a folder is the folder, whatever YAML or the flags'
// library would make of it.
func TestNamesAreTakenAsTyped(t *testing.T) {
	job := pretender(t)
	for _, name := range []string{"pics #2", "!pics", " pics", "2026", "010", "pics: all", "[pics]"} {
		dir := t.TempDir()
		for _, part := range []string{"train", "validation"} {
			for _, class := range []string{"gothic", "tudor"} {
				putImage(t, filepath.Join(dir, name, part, class, "1.png"))
			}
		}
		train, validation := filepath.Join(name, "train"), filepath.Join(name, "validation")
		for how, x := range map[string]struct{ environ, args []string }{
			"flag":     {nil, []string{"--train=" + train, "--validation=" + validation}},
			"set":      {nil, []string{"--set", "data.train=" + train, "--set", "data.validation=" + validation}},
			"variable": {[]string{"ATELIER_TRAIN_DATA_TRAIN=" + train, "ATELIER_TRAIN_DATA_VALIDATION=" + validation}, nil},
		} {
			r := talk(t, dir, false, "", x.environ, append([]string{"train", "--no-mlflow", "--out", how}, x.args...)...)
			if !strings.Contains(r.err, "enough seen") {
				t.Errorf("%q by %s: %+v", name, how, r)
				continue
			}
			if got := job()["data"].(map[string]any)["train"]; got != train {
				t.Errorf("%q by %s: trains on %q", name, how, got)
			}
		}
	}
}

func TestNumbersAndHome(t *testing.T) {
	job := pretender(t)
	dir := imageFolder(t)
	home := t.TempDir()
	environ := []string{"HOME=" + home}
	if r := talk(t, dir, false, "", environ, "train", "--no-mlflow", "--seed", "1e3", "--out=~/results"); !strings.Contains(r.err, "enough seen") || job()["seed"] != uint64(1000) {
		t.Errorf("--seed 1e3: %+v", r)
	}
	if found, _ := filepath.Glob(filepath.Join(home, "results", "*")); len(found) == 0 {
		t.Error("--out=~/results did not write below the home folder")
	}
	if found, _ := filepath.Glob(filepath.Join(dir, "~*")); len(found) > 0 {
		t.Errorf("a folder that is called ~: %v", found)
	}
	for _, x := range [][]string{
		{"train", "--no-mlflow", "--epochs", "010"},
		{"train", "--no-mlflow", "--set", "epochs=010"},
		{"train", "--no-mlflow", "--set", "epochs=3 # few"},
		{"data", "synth", "drawn", "--train", "010"},
		{"data", "synth", "drawn", "--train", "0x10"},
		{"data", "synth", "drawn", "--seed", "1_0"},
		{"data", "synth", "drawn", "--difficulty", "NaN"},
		{"data", "split", "a", "b", "--ratios", "0.7,0.15,00.15"},
		{"tune", "--no-mlflow", "--set", "space.lr.high=010"},
		{"tune", "--no-mlflow", "--set", "space.lr.high={a: b} # c"},
		{"tune", "--resume", "--trials", "010"},
		{"trial", "show", "s-aaaaaaaa", "07"},
		{"sweep", "priority", "s-aaaaaaaa", "010"},
	} {
		if r := talk(t, dir, false, "", environ, x...); r.code != 2 || r.err == "" {
			t.Errorf("%q: exit %d, %s", x, r.code, r.err)
		}
	}
}
