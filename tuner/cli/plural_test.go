package cli_test

import (
	"testing"

	"atelier/tuner/cli"
)

func TestPlural(t *testing.T) {
	for want, x := range map[string]struct {
		n    int64
		word string
	}{
		"0 trials": {0, "trial"}, "1 epoch": {1, "epoch"}, "2 epochs": {2, "epoch"}, "1 class": {1, "class"}, "12 classes": {12, "class"},
		"3 searches": {3, "search"}, "12,345 files": {12345, "file"}, "1,000,000 trials": {1_000_000, "trial"}, "999 trials": {999, "trial"},
	} {
		if got := cli.Plural(x.n, x.word); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
