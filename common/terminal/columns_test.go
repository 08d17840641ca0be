package terminal_test

import (
	"testing"
	"unicode/utf8"

	"atelier/common/terminal"
)

func TestColumns(t *testing.T) {
	for s, want := range map[string]int{"": 0, "gothic": 6, "häuser ☃": 8, "哥特式": 6, "e\u0301": 1, "ｆｕｌｌ": 8, "ﾊﾝ": 2, "🙂 a": 4, "한옥": 4, "…": 1} {
		if got := terminal.Columns(s); got != want {
			t.Errorf("%q takes %d columns, want %d", s, got, want)
		}
	}
	for _, tc := range []struct {
		s       string
		columns int
		want    string
	}{{"gothic", 6, "gothic"}, {"gothic", 5, "goth…"}, {"哥特式", 6, "哥特式"}, {"哥特式", 5, "哥特…"}, {"哥特式", 4, "哥…"}, {"a b c", 3, "a…"}, {"abc", 1, "…"}, {"abc", 0, ""}} {
		if got := terminal.Cut(tc.s, tc.columns); got != tc.want {
			t.Errorf("%q in %d columns is %q, want %q", tc.s, tc.columns, got, tc.want)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add("哥特式 e\u0301 x", 4)
	f.Fuzz(func(t *testing.T, s string, columns int) {
		if columns < 0 || columns > 1000 {
			return
		}
		got := terminal.Cut(s, columns)
		if n := terminal.Columns(got); n > columns || utf8.ValidString(s) && !utf8.ValidString(got) {
			t.Errorf("%q in %d columns is %q, %d", s, columns, got, n)
		}
	})
}
