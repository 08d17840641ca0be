package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"atelier/common/terminal"
)

// table is the form for people; the other formats come from the records. Its
// columns are set two spaces apart, columns of numbers to the right. On a screen
// no row is wider than the screen; elsewhere nothing is left out.
type table struct {
	head []string
	rows [][]string

	wide  []string // heads of columns that a screen shows with -o wide alone
	spare []string // heads of columns that a narrow screen does without, the first to go first
	flex  []string // heads of columns whose cells may be cut short
	prose string   // head of the last column where that is text, which goes on below where it is long
	moves []string // heads of columns that change by themselves, such as an age
}

// comfort is how wide a column that can be cut short stays as long as another
// one can be left out.
const comfort = 18

// leastFlex is how far such a column is cut at most.
const leastFlex = 6

// page reports whether the table is a record on a page: names and what they have.
func (t table) page() bool { return len(t.head) == 2 && strings.Join(t.head, "") == "" }

// clean is the table as a terminal may show it.
func (t table) clean() table {
	t.head, t.rows = slices.Clone(t.head), slices.Clone(t.rows)
	for i := range t.head {
		t.head[i] = terminal.Line(t.head[i])
	}
	for i := range t.rows {
		t.rows[i] = slices.Clone(t.rows[i])
		for j := range t.rows[i] {
			t.rows[i][j] = terminal.Line(t.rows[i][j])
		}
	}
	return t
}

// without is the table less a column.
func (t table) without(head string) table {
	at := slices.Index(t.head, head)
	if at < 0 {
		return t
	}
	t.head = slices.Delete(slices.Clone(t.head), at, at+1)
	t.rows = slices.Clone(t.rows)
	for i := range t.rows {
		t.rows[i] = slices.Delete(slices.Clone(t.rows[i]), at, at+1)
	}
	return t
}

// widths are those of the columns.
func (t table) widths() []int {
	out := make([]int, len(t.head))
	for i, h := range t.head {
		out[i] = terminal.Columns(h)
		for _, r := range t.rows {
			out[i] = max(out[i], terminal.Columns(r[i]))
		}
	}
	return out
}

// flexible are the places of the columns that may be cut short.
func (t table) flexible() (out []int) {
	for i, h := range t.head {
		if slices.Contains(t.flex, h) {
			out = append(out, i)
		}
	}
	return out
}

// lineWidth is how wide a row is whose columns are so wide.
func lineWidth(widths []int) int {
	n := 2 * max(len(widths)-1, 0)
	for _, w := range widths {
		n += w
	}
	return n
}

// fit is a clean table for a screen of so many columns: first goes what is for -o
// wide, then what can be spared, then cells are cut short.
func (t table) fit(columns int) table {
	if t.page() {
		return t.wrapped(columns)
	}
	for _, h := range t.wide {
		t = t.without(h)
	}
	tight := func() int {
		w := t.widths()
		for _, i := range t.flexible() {
			w[i] = min(w[i], comfort)
		}
		return lineWidth(w)
	}
	for _, h := range t.spare {
		if tight() <= columns {
			break
		}
		t = t.without(h)
	}
	// The widest gives first.
	w := t.widths()
	flexible := t.flexible()
	for lineWidth(w) > columns {
		at := -1
		for _, i := range flexible {
			if w[i] > leastFlex && (at < 0 || w[i] > w[at]) {
				at = i
			}
		}
		if at < 0 {
			break
		}
		w[at]--
	}
	if last := len(t.head) - 1; last > 0 && t.head[last] == t.prose {
		return t.below(columns - lineWidth(w[:last]) - 2)
	}
	t.head, t.rows = slices.Clone(t.head), slices.Clone(t.rows)
	for _, i := range flexible {
		t.head[i] = terminal.Cut(t.head[i], w[i])
		for r := range t.rows {
			t.rows[r] = slices.Clone(t.rows[r])
			t.rows[r][i] = terminal.Cut(t.rows[r][i], w[i])
		}
	}
	return t
}

// wrapped is a page with what is long on several lines, broken at blanks.
func (t table) wrapped(columns int) table {
	room := columns - t.widths()[0] - 2
	if room < leastFlex {
		return t
	}
	var rows [][]string
	for _, r := range t.rows {
		name := r[0]
		for i, line := range wrap(r[1], room) {
			if i > 0 {
				name = ""
			}
			rows = append(rows, []string{name, line})
		}
	}
	t.rows = rows
	return t
}

// below is a table whose last column is so wide at most: what is longer goes on in
// rows of its own.
func (t table) below(room int) table {
	if room < comfort {
		return t
	}
	last := len(t.head) - 1
	var rows [][]string
	for _, r := range t.rows {
		for i, line := range wrap(r[last], room) {
			row := make([]string, len(t.head))
			if i == 0 {
				copy(row, r)
			}
			row[last] = line
			rows = append(rows, row)
		}
	}
	t.rows = rows
	return t
}

// wrap is a cell in lines of so many columns; one that fits stays as it is.
func wrap(text string, room int) []string {
	if terminal.Columns(text) <= room {
		return []string{text}
	}
	return terminal.Fold(text, room)
}

// lines are the clean table's rows as they are written; that of the heads is
// first, "" where there are none.
func (t table) lines() []string {
	width := t.widths()
	// A column is set right when all of it are numbers, or nothing.
	right := make([]bool, len(t.head))
	for i := range t.head {
		right[i] = len(t.rows) > 0
		for _, r := range t.rows {
			right[i] = right[i] && (r[i] == "" || r[i] == "-" || r[i] == "NaN" || strings.IndexByte("+-.0123456789", r[i][0]) >= 0 && !strings.ContainsAny(r[i], ":/ "))
		}
	}
	line := func(cells []string) string {
		var b strings.Builder
		for i, s := range cells {
			pad := strings.Repeat(" ", width[i]-terminal.Columns(s))
			if right[i] {
				s = pad + s
			} else {
				s += pad
			}
			b.WriteString(s)
			if i < len(cells)-1 {
				b.WriteString("  ")
			}
		}
		return strings.TrimRight(b.String(), " ")
	}
	out := []string{line(t.head)}
	for _, r := range t.rows {
		out = append(out, line(r))
	}
	return out
}

// writeTable writes all of a table.
func writeTable(w io.Writer, t table) { writeLines(w, t.clean().lines(), 0) }

// writeLines writes a table's lines, each cut to a screen's columns; 0 = none.
func writeLines(w io.Writer, lines []string, columns int) {
	for i, l := range lines {
		if i == 0 && l == "" {
			continue
		}
		if columns > 0 {
			l = terminal.Cut(l, columns)
		}
		fmt.Fprintln(w, l)
	}
}

// writeTable writes a table to the command's output: where that is a screen, as
// wide as it at most.
func (e *Env) writeTable(w io.Writer, t table, wide bool) {
	columns := e.screen()
	if columns == 0 || wide {
		writeTable(w, t)
		return
	}
	t = t.clean().fit(columns)
	if t.page() {
		columns = 0 // a word too long to be broken stays whole: it may be a path
	}
	writeLines(w, t.lines(), columns)
}

// screen is how many columns the terminal has that output goes to; 0 = it goes elsewhere.
func (e *Env) screen() int {
	if !e.Screen || e.Width == nil {
		return 0
	}
	return e.Width()
}
