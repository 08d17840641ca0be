// Package filename makes names of files from names of other things, and keeps
// names of files in texts: a file's name is bytes without a slash, at most 255 of
// them, and need not be UTF-8.
package filename

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Max is the length in bytes of the longest name that file systems take.
const Max = 255

// Cut is a name of at most max bytes: itself, or its beginning with a digest of
// the whole behind, so that two long names stay two.
func Cut(name string, max int) string {
	if len(name) <= max {
		return name
	}
	end := fmt.Sprintf("~%x", sha256.Sum256([]byte(name)))[:9]
	at := max - len(end)
	for at > 0 && !utf8.RuneStart(name[at]) {
		at--
	}
	return name[:at] + end
}

// escape is where the bytes that are no UTF-8 go: code points of the last plane
// for private use.
const escape = 0x10fe00

// Encode is a name as a text in UTF-8, for JSON, which has no other; Decode gives
// the name back. A name in UTF-8 is itself.
func Encode(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		if r == utf8.RuneError && n == 1 {
			r = escape + rune(name[i])
		}
		b.WriteRune(r)
		i += n
	}
	return b.String()
}

// Decode is what Encode was given.
func Decode(text string) string {
	if !strings.ContainsFunc(text, escaped) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if escaped(r) {
			b.WriteByte(byte(r - escape))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func escaped(r rune) bool { return r >= escape+0x80 && r <= escape+0xff }
