package man

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"atelier/common/terminal"
)

// Columns of a help: as many as a terminal has, from the least to the most, and the standard where there is no
// terminal.
const (
	standardWidth = 80
	leastWidth    = 40
	mostWidth     = 100
	mostTerm      = 29 // columns of an indented option that its description can still be beside
)

// Sized is a Writer that knows its columns: helps that are printed to it fit them.
type Sized struct {
	io.Writer
	Columns int
}

// Terminal is a writer to a file, with the columns of its terminal if it is one.
func Terminal(w io.Writer, f *os.File) io.Writer {
	if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
		return Sized{w, columns}
	}
	return w
}

// HelpWidth is how wide a help is where there are so many columns; 0 = unknown.
func HelpWidth(columns int) int {
	if columns <= 0 {
		return standardWidth
	}
	return min(max(columns, leastWidth), mostWidth)
}

// All helps of a program go through one printer. The library sets its own by a variable, and so does this.
func init() {
	cli.HelpPrinter = func(out io.Writer, text string, data any) {
		var b bytes.Buffer
		cli.HelpPrinterCustom(&b, text, data, nil)
		columns := 0
		if s, ok := out.(Sized); ok {
			columns = s.Columns
		}
		_, _ = io.WriteString(out, Fold(b.String(), HelpWidth(columns)))
	}
}

var (
	title  = regexp.MustCompile(`^[A-Z][A-Z ]*:$`)
	twoCol = regexp.MustCompile(`^( *\S+(?: \S+)*)( {2,})\S`)
	again  = regexp.MustCompile(` \[ .* \]$`) // how the library shows that a flag may be given again
)

// Fold fits a help into a width. Paragraphs are filled, and a sentence that ends a line stays the end of one. A
// block in two columns stays one: what does not fit beside goes on lines of its own. Examples stay as they are, to be
// pasted.
func Fold(help string, width int) string {
	var out, block []string
	flush := func() {
		if len(block) > 0 {
			out = append(out, foldBlock(block, width)...)
			block = nil
		}
	}
	examples := false
	for line := range strings.Lines(help) {
		line = strings.TrimRight(line, " \n")
		switch {
		case title.MatchString(strings.TrimSpace(line)) || line == "":
			flush()
			examples = line == "EXAMPLES:" || examples && line == ""
			if line != "" || len(out) > 0 && out[len(out)-1] != "" {
				out = append(out, line)
			}
		case examples && strings.HasPrefix(line, " "):
			out = append(out, line)
		default:
			examples = false
			block = append(block, line)
		}
	}
	flush()
	return strings.Join(out, "\n") + "\n"
}

// foldBlock fits lines without a blank one between them.
func foldBlock(lines []string, width int) []string {
	for i, line := range lines {
		// A heading such as "Exit codes:" may be above a table.
		if at := twoCol.FindStringSubmatchIndex(line); at != nil && i <= 1 {
			return append(fill(lines[:i], width), foldTable(lines[i:], len([]rune(line[:at[5]])), width)...)
		}
	}
	return fill(lines, width)
}

// foldTable fits a block whose second column begins at a column.
func foldTable(lines []string, column, width int) (out []string) {
	type row struct{ term, text string }
	var rows []row
	widest := 0
	for _, line := range lines {
		r := []rune(line)
		if len(r) <= column || r[column-1] != ' ' {
			rows = append(rows, row{term: line})
		} else if term := strings.TrimRight(string(r[:column]), " "); term == "" && len(rows) > 0 {
			rows[len(rows)-1].text += " " + string(r[column:])
			continue
		} else {
			rows = append(rows, row{again.ReplaceAllString(term, ""), string(r[column:])})
		}
		if n := terminal.Columns(rows[len(rows)-1].term); n <= min(mostTerm, width*2/5) {
			widest = max(widest, n)
		}
	}
	for _, r := range rows {
		gap := strings.Repeat(" ", widest+2)
		text := terminal.Fold(r.text, width-len(gap))
		switch n := terminal.Columns(r.term); {
		case r.text == "":
			out = append(out, fill([]string{r.term}, width)...)
		case n <= widest:
			out = append(out, r.term+strings.Repeat(" ", len(gap)-n)+text[0])
			text = text[1:]
		default:
			out = append(out, fill([]string{r.term}, width)...)
		}
		for _, t := range text {
			out = append(out, gap+t)
		}
	}
	return out
}

// fill fills paragraphs: a line that is not the end of a sentence is joined to the next. Indented lines keep theirs.
func fill(lines []string, width int) (out []string) {
	text := ""
	for i, line := range lines {
		text = strings.TrimPrefix(text+" "+line, " ")
		inside := func(s string) bool { return strings.HasPrefix(s, " ") }
		if i < len(lines)-1 && !inside(line) && !inside(lines[i+1]) && !strings.HasSuffix(line, ".") {
			continue
		}
		if inside(line) {
			text = line
		}
		lead := text[:len(text)-len(strings.TrimLeft(text, " "))]
		for _, t := range terminal.Fold(text, width-len(lead)) {
			out = append(out, lead+t)
		}
		text = ""
	}
	return out
}
