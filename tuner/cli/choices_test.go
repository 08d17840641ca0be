package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/inference"
	"atelier/common/settings"
	"atelier/tuner/cli"
	"atelier/tuner/data/synth"
	"atelier/tuner/weights"

	ucli "github.com/urfave/cli/v2"
)

// Completion proposes what a flag or an argument takes, from where that is
// declared.
func TestCompletionOfChoices(t *testing.T) {
	start(t)
	device := []string{"auto", "cpu", "cuda:0"}
	for _, x := range []struct {
		line []string
		want []string
	}{
		{[]string{"train", "--model", ""}, settings.Models()},
		{[]string{"tune", "--model", "resnet1"}, []string{"resnet18", "resnet101", "resnet152"}},
		{[]string{"infer", "--mode", ""}, inference.Table.Find("mode").Type.Choices},
		{[]string{"infer", "--device", ""}, device},
		{[]string{"serve", "--device", ""}, device},
		{[]string{"serve", "--precision", ""}, settings.Table.Find("precision").Type.Choices},
		{[]string{"tune", "--search-method", "g"}, []string{"grid", "grid_search", "genetic"}},
		{[]string{"data", "synth", "x", "--style", ""}, synth.Styles()},
		{[]string{"trial", "list", "s-aaaaaaaa", "--state", "w"}, []string{"waiting"}},
		{[]string{"leaderboard", "s-aaaaaaaa", "--source", ""}, []string{"redis", "state"}},
		{[]string{"weights", "pull", ""}, weights.Names()},
		{[]string{"train", "--set", "schedule="}, []string{"schedule=constant", "schedule=step", "schedule=cosine", "schedule=plateau"}},
		{[]string{"train", "--set", "nesterov="}, []string{"nesterov=true", "nesterov=false"}},
		{[]string{"train", "--set", "augmentation.cut"}, []string{"augmentation.cutmix.enabled=", "augmentation.cutmix.alpha="}},
		{[]string{"trial", "show", "s-aaaaaaaa", ""}, []string{"9", "7", "3"}},
		{[]string{"trial", "logs", "facades", "7"}, []string{"7"}},
		{[]string{"checkpoint", "pull", "s-aaaaaaaa", ""}, []string{"9", "7", "3"}},
		{[]string{"trial", "show", "s-zzzzzzzz", ""}, nil},
		{[]string{"train", "--resume", ""}, []string{":files"}},
		{[]string{"tune", "--resume", ""}, []string{":files"}},
		{[]string{"sweep", "submit", "spec.yaml", "--base-dir", ""}, []string{":files"}},
		{[]string{"explain", ""}, []string{"sweep", "train", "tune", "infer", "exit-codes"}},
		{[]string{"explain", "sweep.budget"}, []string{"sweep.budget", "sweep.budget.trials", "sweep.budget.epochs", "sweep.budget.time"}},
	} {
		got := words(t, x.line...)
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(x.want)); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", x.line, got, want)
		}
	}
}

// Every key that explain knows is proposed, and no other; so is every key of --set.
func TestCompletionHasEveryKey(t *testing.T) {
	start(t)
	for _, d := range cli.References {
		got, want := words(t, "explain", d.Command+"."), keysOf(d)
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("explain %s. proposes\n%q\nnot\n%q", d.Command, got, want)
		}
		if d.Prefix == "" {
			continue
		}
		var keys []string
		for _, s := range d.Table {
			if s.Block == "" {
				keys = append(keys, s.Name+"=")
			}
		}
		got = words(t, d.Command, "--set", "")
		slices.Sort(got)
		if slices.Sort(keys); !slices.Equal(got, keys) {
			t.Errorf("%s --set proposes\n%q\nnot\n%q", d.Command, got, keys)
		}
	}
}

// A flag whose help lists the words that it takes completes them, whichever it is.
func TestEveryListOfWordsIsCompleted(t *testing.T) {
	start(t)
	lists := 0
	cli.Verbs(func(path []string, c *ucli.Command) {
		for _, f := range c.Flags {
			d, ok := f.(ucli.DocGenerationFlag)
			if !ok || len(cli.WordsOf(d.GetUsage())) < 2 {
				continue
			}
			lists++
			if got := words(t, append(slices.Clone(path), "--"+f.Names()[0], "")...); len(got) < 2 || slices.Contains(got, ":files") {
				t.Errorf("%s --%s: %q, its help: %s", strings.Join(path, " "), f.Names()[0], got, d.GetUsage())
			}
		}
	})
	if lists < 20 {
		t.Errorf("%d flags with a list of words", lists)
	}
}

// --resume proposes the trainings and tunings that lie where results go, the
// newest first.
func TestCompletionOfResume(t *testing.T) {
	start(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "checkpoints/a/resume/run.json"), []byte(`{"format": 1}`))
	write(t, filepath.Join(dir, "checkpoints/a/training_history.json"), []byte(`{"status": "interrupted"}`))
	write(t, filepath.Join(dir, "checkpoints/b/resume/run.json"), []byte(`{"format": 1}`))
	write(t, filepath.Join(dir, "checkpoints/c/best_model.pth"), []byte("none to resume"))
	write(t, filepath.Join(dir, "checkpoints_tuning/vanilla/random/resume/run.json"), []byte(`{"status": "running"}`))
	earlier := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "checkpoints/a/resume/run.json"), earlier, earlier); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"train --resume ":              "checkpoints/b\ncheckpoints/a\tinterrupted\n",
		"train --resume checkpoints/a": "checkpoints/a\tinterrupted\n",
		"train --resume elsewhere/":    ":files\n",
		"tune --resume ":               "checkpoints_tuning/vanilla/random\trunning\n",
	} {
		if r := run(t, dir, append([]string{"completion", "words", "--"}, strings.Split(line, " ")...)...); r.out != want {
			t.Errorf("%s: %q, want %q", line, r.out, want)
		}
	}
}
