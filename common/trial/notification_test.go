package trial_test

import (
	"strings"
	"testing"

	"atelier/common/trial"
)

func TestHookHost(t *testing.T) {
	for url, want := range map[string]string{
		"https://hooks.slack.com/services/T0/B0/secret": "https://hooks.slack.com",
		"http://user:secret@10.0.0.7:8080?token=secret": "http://10.0.0.7:8080",
		"https://[fe80::1]:9/secret#x":                  "https://[fe80::1]:9",
		"https://a@secret@host":                         "https://host",
		"no url, secret":                                "",
		"":                                              "",
	} {
		if got := trial.HookHost(url); got != want || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
	}
}
