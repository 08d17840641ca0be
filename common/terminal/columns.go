package terminal

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Columns is how many columns a text takes on a terminal: two for the characters of
// East Asian writing and for pictographs, none for marks that stand on the one before.
func Columns(s string) (n int) {
	for _, r := range s {
		n += columnsOf(r)
	}
	return n
}

func columnsOf(r rune) int {
	switch {
	case r < 0x300: // most texts
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me) || r == '\u200b' || r == '\u200d':
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Cut is a text of so many columns at most; one that is cut shows it by its end.
func Cut(s string, columns int) string {
	if Columns(s) <= columns {
		return s
	}
	n := 0
	for i, r := range s {
		w := columnsOf(r)
		if n+w > columns-1 {
			if columns < 1 {
				return ""
			}
			return strings.TrimRight(s[:i], " ") + "…"
		}
		n += w
	}
	return s
}

// Fold breaks a text at spaces into lines of so many columns at most; a longer word has a line of its own. An empty
// text has no lines.
func Fold(s string, columns int) (lines []string) {
	line := ""
	for _, w := range strings.Fields(s) {
		switch {
		case line == "":
			line = w
		case Columns(line)+1+Columns(w) <= columns:
			line += " " + w
		default:
			lines, line = append(lines, line), w
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
