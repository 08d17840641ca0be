// Package terminal makes texts that others wrote (names of files, classes and
// parameters, messages of workers) fit to be shown: what would act on a terminal
// in place of being read is written out.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line is a text on one line. Control characters, invalid UTF-8 and characters
// that turn the direction of writing stand in it as in Go's string literals:
// \n, \x1b, \u202e.
func Line(s string) string { return shown(s, "") }

// Text is Line for a text of several lines: line breaks and tabs stay.
func Text(s string) string { return shown(s, "\n\t") }

func shown(s, kept string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return acts(r) && !strings.ContainsRune(kept, r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !acts(r) || r == utf8.RuneError || strings.ContainsRune(kept, r):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.String()
}

// acts reports whether a terminal would do something else than show a character.
// A byte that is no UTF-8 is RuneError here; a real U+FFFD is harmless and comes
// out as it is.
func acts(r rune) bool {
	return r == utf8.RuneError || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || Turns(r)
}

// Turns reports whether a character changes the direction of what follows.
func Turns(r rune) bool {
	return r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069'
}
