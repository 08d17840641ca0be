package terminal

import (
	"strings"
	"testing"
)

func TestFit(t *testing.T) {
	text := "first line\n  one two three four\n\nend"
	if got, want := Fit(text, 14), "first line\n  one two\n    three four\n\nend"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Fit(text, 0); got != text {
		t.Errorf("%q", got)
	}
	for columns := 12; columns < 40; columns++ {
		for line := range strings.SplitSeq(Fit("sweep s-k3v9q2ma finished after 4.1s: 40 trials (40 finished), best val_loss 0.1795 (trial 16)", columns), "\n") {
			if Columns(line) > columns {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
	}
}
