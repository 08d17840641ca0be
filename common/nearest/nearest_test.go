package nearest_test

import (
	"strings"
	"testing"

	"atelier/common/nearest"
)

func TestWord(t *testing.T) {
	models := []string{"mobilenet_v2", "resnet101", "resnet18", "resnet34", "vanilla"}
	for unknown, want := range map[string]string{"resnet81": "resnet18", "resnet43": "resnet34", "Resnet-18": "resnet18", "vanila": "vanilla", "mobilenetv2": "mobilenet_v2"} {
		if got := nearest.Word(unknown, models); got != want {
			t.Errorf("%s: %s, want %s", unknown, got, want)
		}
	}
	if got := nearest.Word("x", nil); got != "" {
		t.Errorf("nothing is known: %q", got)
	}
}

// One tie rule for keys, verbs, flags, models, classes: a slip of the hand, then a
// shared beginning, then the first; and nothing is meant by what is like nothing.
func TestClose(t *testing.T) {
	known := []string{"training.epochs", "trials", "submit", "show", "simulate", "stop", "min_epochs", "max_epochs"}
	for typed, want := range map[string]string{"trails": "trials", "submti": "submit", "SHOW": "show", "sim": "simulate", "max_epoch": "max_epochs", "x": "", "": "", "qqqqqqqq": "", "stopp": "stop"} {
		if got, ok := nearest.Close(typed, known); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", typed, got, want)
		}
	}
	if got := nearest.Word(strings.Repeat("trials", 100_000), known); got != "trials" {
		t.Errorf("a very long word: %q", got)
	}
}

// Of several slips of one letter two neighbours in the wrong order are likelier.
func TestSwappedLettersComeFirst(t *testing.T) {
	for typed, want := range map[string]string{"trian": "train", "trail": "trial", "tria": "trial", "tran": "train"} {
		if got, ok := nearest.Close(typed, []string{"trial", "train", "tune"}); !ok || got != want {
			t.Errorf("%s: %q, want %q", typed, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"lr", "rl", 1}, {"epochs", "epcohs", 1}} {
		if got := nearest.Distance(c.a, c.b); got != c.want {
			t.Errorf("%q %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
