package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"atelier/common/exit"
	"atelier/common/setting"
	"atelier/tuner/cli"
)

// keysOf are all keys of a document, with its name in front.
func keysOf(d setting.Document) (keys []string) {
	for _, s := range d.Table {
		keys = append(keys, d.Command+"."+s.Name)
	}
	return keys
}

// The keys that the programs take, those that explain lists and knows, and those
// of the reference pages are the same, and no other.
func TestEveryKeyIsExplained(t *testing.T) {
	total := 0
	for _, d := range cli.References {
		want := keysOf(d)
		total += len(want)
		var all []struct {
			Keys []struct{ Key string }
		}
		r := run(t, t.TempDir(), "explain", d.Command, "-o", "json")
		if err := json.Unmarshal([]byte(r.out), &all); err != nil || len(all) != 1 {
			t.Fatalf("explain %s: %v\n%s%s", d.Command, err, r.out, r.err)
		}
		var listed []string
		for _, k := range all[0].Keys {
			listed = append(listed, k.Key)
		}
		if !slices.Equal(listed, want) {
			t.Errorf("explain %s lists\n%q, the parser takes\n%q", d.Command, listed, want)
		}
		for _, key := range want {
			var one []struct{ Key, Takes, Help string }
			r := run(t, t.TempDir(), "explain", strings.ReplaceAll(key, "LABEL", "gpu"), "-o", "json")
			if err := json.Unmarshal([]byte(r.out), &one); err != nil || len(one) != 1 || one[0].Key != key || one[0].Takes == "" || one[0].Help == "" {
				t.Errorf("explain %s: %v\n%s%s", key, err, r.out, r.err)
			}
		}
		page, part := "../../deploy/docs/settings.md", "## atelier "+d.Command+"\n"
		if d.Prefix == "" {
			page, part = "../../deploy/docs/spec.md", ""
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), part)
		if part != "" {
			after, _, _ = strings.Cut(after, "\n## ")
		}
		var shown []string
		for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(after, -1) {
			shown = append(shown, d.Command+"."+m[1])
		}
		// Elsewhere is on another command's part of the page.
		want = slices.DeleteFunc(want, func(k string) bool { return d.Table.Find(strings.TrimPrefix(k, d.Command+".")).Elsewhere })
		slices.Sort(shown)
		if slices.Sort(want); !slices.Equal(shown, want) {
			t.Errorf("%s has the keys\n%q\nof %s, which are\n%q", page, shown, d.Command, want)
		}
	}
	if total < 250 {
		t.Errorf("%d keys", total)
	}
}

// What a person asks for in other words is found, or the nearest key named.
func TestExplain(t *testing.T) {
	for _, x := range []struct {
		key  string
		code int
		want []string
	}{
		{"", 0, []string{"sweep", "conf/training_config.yaml", "conf/inference.yaml", "exit-codes"}},
		{"sweep", 0, []string{"sweep.search_method", "sweep.space.NAME.low", "sweep.training.lr", "sweep.population.share"}},
		{"sweep.space", 0, []string{"sweep.space.NAME.choices", "none: it is needed"}},
		{"sweep.space.lr.low", 0, []string{"sweep.space.NAME.low", "type float or int", "low: 1.0e-5", "the training setting lr (learning rate) takes a number above 0"}},
		{"sweep.space.augmentation.cutmix.alpha.high", 0, []string{"sweep.space.NAME.high", "the training setting augmentation.cutmix.alpha"}},
		{"sweep.space.lr", 0, []string{"sweep.space.NAME\n"}},
		{"sweep.stopping.reduction", 0, []string{"4 (asha), 3 (hyperband)", "rule asha, hyperband"}},
		{"sweep.objectives[0].metric", 0, []string{"images_per_s"}},
		{"train.lr", 0, []string{"learning rate", "above 0 and at most 1000", "--lr", "ATELIER_TRAIN_LR", "0.001"}},
		{"train.augmentation", 0, []string{"train.augmentation.cutmix.alpha"}},
		{"tune.search_method", 0, []string{"--search-method", "bayesian"}},
		{"tune.space.lr.high", 0, []string{"tune.space.NAME.high"}},
		{"infer.processing.batch_size", 0, []string{"1 to 4096", "32"}},
		{"lr", 0, []string{"train.lr"}},
		{"sweep.space.lr.hgh", 3, []string{"did you mean sweep.space.lr.high?"}},
		{"sweep.stoping.rule", 3, []string{"did you mean sweep.stopping.rule?"}},
		{"train.learning_rate", 3, []string{"did you mean train.lr?"}},
		{"train.learnrate", 3, []string{"did you mean train.lr?"}},
		{"swep.budget", 3, []string{"did you mean sweep.budget?"}},
		{"infer.procesing.batch_size", 3, []string{"did you mean infer.processing.batch_size?"}},
	} {
		r := run(t, t.TempDir(), append([]string{"explain"}, strings.Fields(x.key)...)...)
		for _, want := range x.want {
			if r.code != x.code || !strings.Contains(r.out+r.err, want) {
				t.Errorf("explain %s: exit %d, no %q in\n%s%s", x.key, r.code, want, r.out, r.err)
			}
		}
	}
}

// The exit codes are one table: explain, the help and the reference page have it.
func TestExitCodesAreOneTable(t *testing.T) {
	explained := run(t, t.TempDir(), "explain", "exit-codes").out
	help := strings.Join(strings.Fields(run(t, t.TempDir(), "--help").out), " ") // folded there
	page, err := os.ReadFile("../../deploy/docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range exit.Programs {
		for _, c := range p.Codes {
			if row := fmt.Sprintf("| %d | %s |\n", c.Code, c.Meaning); p.Name == "atelier" && !strings.Contains(string(readme), row) {
				t.Errorf("README.md lacks %s", row)
			}
			if !strings.Contains(explained, c.Meaning) || !strings.Contains(string(page), c.Meaning) || p.Name == "atelier" && !strings.Contains(help, c.Meaning) {
				t.Errorf("%s %d, %q, is missing somewhere", p.Name, c.Code, c.Meaning)
			}
		}
	}
}
