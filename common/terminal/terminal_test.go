package terminal_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"atelier/common/terminal"
)

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"gothic/a b.jpg": "gothic/a b.jpg", "e\x1b[31mred": `e\x1b[31mred`, "new\nline": `new\nline`, "lat\xe4in": `lat\xe4in`, "häuser ☃ �": "häuser ☃ �",
		"\u009b31m": `\u009b31m`, "a\u202egpj.exe": `a\u202egpj.exe`, "\x7f\r\t": `\x7f\r\t`, "": "",
	} {
		if got := terminal.Line(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	if got := terminal.Text("a\n\tb\x1b[2J"); got != "a\n\tb\\x1b[2J" {
		t.Errorf("%q", got)
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b[31m\xe4\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := terminal.Line(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, unicode.IsControl) || terminal.Line(got) != got {
			t.Fatalf("%q is shown as %q", s, got)
		}
	})
}
