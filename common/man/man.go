// Package man writes the manual pages and the help of the programs from the flags
// and commands that they declare. It knows no program by itself.
//
// Pages are roff with the macros of man(7), which groff and mandoc both read: plain
// ASCII, every other letter as its escape, and nothing that a text holds is taken
// for a request.
package man

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"atelier/common/exit"
	"atelier/common/version"
)

// Page is a manual page under construction.
type Page struct {
	Name    string // atelier-sweep
	Section int    // 1: commands, 5: files, 8: services
	b       bytes.Buffer
}

// New begins a page; what is its one line in indexes.
func New(name string, section int, what string) *Page {
	p := &Page{Name: name, Section: section}
	fmt.Fprintf(&p.b, ".TH %s %d \"\" \"atelier %s\" \"Atelier\"\n", quoted(strings.ToUpper(name)), section, plain(version.Version))
	p.Heading("NAME")
	fmt.Fprintf(&p.b, "%s \\- %s\n", escaped(name), escaped(what))
	return p
}

// File is the page's place in a tree of manual pages, where man -M finds it.
func (p *Page) File() string { return fmt.Sprintf("man%d/%s.%d", p.Section, p.Name, p.Section) }

// Bytes is the page.
func (p *Page) Bytes() []byte { return p.b.Bytes() }

// Heading begins a section.
func (p *Page) Heading(title string) { fmt.Fprintf(&p.b, ".SH %s\n", quoted(title)) }

// Sub begins a part of a section.
func (p *Page) Sub(title string) { fmt.Fprintf(&p.b, ".SS %s\n", quoted(title)) }

// Text writes paragraphs; a blank line ends one, and a line that begins with a
// blank keeps its place.
func (p *Page) Text(text string) {
	for i, para := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if i > 0 {
			p.b.WriteString(".PP\n")
		}
		for line := range strings.Lines(para) {
			if strings.HasPrefix(line, " ") && strings.TrimSpace(line) != "" {
				p.b.WriteString(".br\n")
			}
			p.line(strings.TrimSpace(line))
		}
	}
}

// line writes a line of text, which may begin with anything.
func (p *Page) line(text string) {
	if text != "" {
		p.b.WriteString(lineStart(escaped(text)) + "\n")
	}
}

// lineStart guards what would be a request at the start of a line.
func lineStart(text string) string {
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		return `\&` + text
	}
	return text
}

// Item is a term, set bold, with what is to be known of it.
func (p *Page) Item(term, text string) {
	fmt.Fprintf(&p.b, ".TP\n\\fB%s\\fR\n", escaped(term))
	if strings.TrimSpace(text) == "" {
		p.b.WriteString("\\&\n")
		return
	}
	for line := range strings.Lines(text) {
		p.line(strings.TrimSpace(line))
	}
}

// More continues an item with a paragraph of its own.
func (p *Page) More(text string) {
	p.b.WriteString(".IP\n")
	p.line(text)
}

// Code writes lines as they are.
func (p *Page) Code(lines ...string) {
	p.b.WriteString(".PP\n.RS 4\n.nf\n")
	for _, l := range lines {
		if l = escaped(strings.TrimRight(l, "\n")); l == "" {
			l = `\&`
		}
		p.b.WriteString(lineStart(l) + "\n")
	}
	p.b.WriteString(".fi\n.RE\n")
}

// Flags writes the flags that are visible, each an item.
func (p *Page) Flags(flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, visible := f.(cli.VisibleFlag); !ok || visible && !v.IsVisible() {
			continue
		}
		what, usage := placeholder(d.GetUsage())
		var names []string
		for _, n := range f.Names() {
			dash := "--"
			if len(n) == 1 {
				dash = "-"
			}
			if n = dash + n; d.TakesValue() {
				if what == "" {
					what = "VALUE"
				}
				n += " " + what
			}
			names = append(names, n)
		}
		p.Item(strings.Join(names, ", "), usage)
		if text := defaultOf(d); text != "" && !strings.Contains(usage, "(default") {
			p.More("Default: " + text)
		}
		if vars := d.GetEnvVars(); len(vars) > 0 {
			p.More("Environment: " + strings.Join(vars, ", "))
		}
	}
}

// ExitStatus writes a program's exit codes.
func (p *Page) ExitStatus(codes []exit.Code) {
	p.Heading("EXIT STATUS")
	for _, c := range codes {
		p.Item(fmt.Sprint(c.Code), c.Meaning)
	}
}

// Program is the whole page of a program without commands.
func Program(app *cli.App, section int, codes []exit.Code) *Page {
	p := New(app.Name, section, app.Usage)
	p.Heading("SYNOPSIS")
	p.Text(app.Name + " [OPTIONS]")
	p.Heading("DESCRIPTION")
	// The exit codes, which a help shows in its description, have a section of their own.
	text, _, _ := strings.Cut(app.Description, "Exit codes:")
	if text = strings.TrimSpace(text); text == "" {
		text = app.Usage
	}
	p.Text(text)
	p.Heading("OPTIONS")
	p.Flags(app.Flags)
	p.ExitStatus(codes)
	return p
}

// placeholder takes the word between backquotes out of a usage: what a flag takes.
func placeholder(usage string) (word, text string) {
	_, rest, ok := strings.Cut(usage, "`")
	if !ok {
		return "", usage
	}
	word, _, _ = strings.Cut(rest, "`")
	return word, strings.ReplaceAll(usage, "`", "")
}

// defaultOf is a default worth showing: of a flag that is absent unless it is
// given, none is.
func defaultOf(d cli.DocGenerationFlag) string {
	text := d.GetDefaultText()
	if text == "" {
		text = d.GetValue()
	}
	switch text = strings.Trim(text, `"`); text {
	case "0", "0s", "false", "[]":
		return ""
	}
	if !d.TakesValue() {
		return ""
	}
	return text
}

// empty is what the library shows as the default of a flag that has none.
var empty = regexp.MustCompile(` \(default: (0|0s|false|"")\)`)

// Help is a flag's line in a help, without defaults that are none: a program sets
// the library's FlagStringer to it.
func Help(stringer cli.FlagStringFunc) cli.FlagStringFunc {
	return func(f cli.Flag) string { return empty.ReplaceAllString(stringer(f), "") }
}

// escaped is a text in which nothing is roff.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '`':
			b.WriteString("\\(ga")
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '"':
			b.WriteString(`\(dq`)
		case r == '\t':
			b.WriteString("    ")
		case r < ' ' || r == 0x7f:
		case r > 0x7e:
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quoted is an argument of a request.
func quoted(text string) string { return `"` + escaped(text) + `"` }

// plain is a word for the page's head, where escapes are not read.
func plain(text string) string { return strings.NewReplacer(`"`, "", `\`, "").Replace(text) }
