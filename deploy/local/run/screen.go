package main

import (
	"fmt"
	"io"
	"os"

	"atelier/common/terminal"

	"golang.org/x/term"
)

// terminals are standard output and standard error where they are terminals;
// elsewhere nil.
type terminals struct{ out, err *os.File }

func screens() (t terminals) {
	if term.IsTerminal(int(os.Stdout.Fd())) {
		t.out = os.Stdout
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		t.err = os.Stderr
	}
	return t
}

// prose writes a message, folded at blanks to the width of a terminal.
func (m *Main) prose(format string, a ...any) {
	columns := 0
	if m.Terminal.out != nil {
		if w, _, err := term.GetSize(int(m.Terminal.out.Fd())); err == nil && w >= 20 {
			columns = w
		}
	}
	io.WriteString(m.Out, terminal.Fit(fmt.Sprintf(format, a...), columns))
}
