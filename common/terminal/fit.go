package terminal

import "strings"

// Fit is a text of several lines for a terminal of so many columns: each line is
// folded and continued behind two blanks more than its own. 0 columns leave it
// as it is.
func Fit(text string, columns int) string {
	if columns <= 0 {
		return text
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		rest := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(rest)]
		if Columns(line) > columns {
			lines[i] = indent + strings.Join(Fold(rest, columns-len(indent)-2), "\n"+indent+"  ")
		}
	}
	return strings.Join(lines, "\n")
}
