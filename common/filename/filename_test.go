package filename_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"atelier/common/filename"
)

func TestCut(t *testing.T) {
	long := strings.Repeat("ä", 127)
	for _, max := range []int{20, 80, 251} {
		got := filename.Cut(long, max)
		if len(got) > max || !utf8.ValidString(got) || got == filename.Cut(long+"b", max) {
			t.Errorf("%d bytes: %q", max, got)
		}
	}
	if filename.Cut("gothic", 6) != "gothic" {
		t.Error("a short name is itself")
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range []string{"lat\xe4in.jpg", "häuser", "\xff\xfe", "a\xc3", "\xed\xa0\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		text := filename.Encode(name)
		b, err := json.Marshal(text)
		var back string
		if err != nil || json.Unmarshal(b, &back) != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(name, func(r rune) bool { return r >= 0x10fe80 && r <= 0x10feff }) {
			return // a name of private characters of the last plane; nobody has one
		}
		if filename.Decode(back) != name {
			t.Fatalf("%q became %q", name, filename.Decode(back))
		}
	})
}
