package trial_test

import (
	"testing"

	"atelier/common/trial"
)

func TestUnfitName(t *testing.T) {
	for name, fit := range map[string]bool{
		"": true, "facades": true, "facades, night": true, "@x": true, "me@home": true, "a@2 b": true, "s": true, "run@0": true, "model@2.pth": true,
		"s-": false, "s-5u": false, "s-aaaaaaaa": false, "@": false, "@2": false, "run@": false, "run@17": false,
	} {
		if why := trial.UnfitName(name); (why == "") != fit {
			t.Errorf("%q: %q", name, why)
		}
	}
}

func TestValidAlias(t *testing.T) {
	for name, fit := range map[string]bool{"production": true, "v1.2_a-b": true, "s": true, "": false, "BAD ALIAS": false, "s-1": false, "-a": false} {
		if trial.ValidAlias(name) != fit {
			t.Errorf("%q", name)
		}
	}
}
