package trial_test

import (
	"testing"

	"atelier/common/trial"
)

func TestSameData(t *testing.T) {
	first := trial.Data("aaaaaaaaaaaaaaaaaaaa", "bbbb", 64, "cccc")
	for _, x := range []struct {
		other string
		same  bool
	}{
		{first, true}, {"", true},
		{trial.Data("aaaaaaaaaaaaaaaaaaaa", "bbbb", 96, "dddd"), true}, // another size of the same files
		{trial.Data("aaaaaaaaaaaaaaaaaaaa", "bbbb", 64, "dddd"), false},
		{trial.Data("aaaaaaaaaaaaaaaaaaaa", "bbbc", 96, "dddd"), false},
		{trial.Data("aaab", "bbbb", 64, "cccc"), false},
		{"made by another trainer", false},
	} {
		if trial.SameData(first, x.other) != x.same || trial.SameData(x.other, first) != x.same {
			t.Errorf("%s and %s", first, x.other)
		}
	}
}
