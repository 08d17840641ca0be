package transcript

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestForm(t *testing.T) {
	var played [][]Command
	script := "# why\n\n> create s-1 9 n=3 cause='lease ran out' ; note {\"x\":\"a=b\"}\n  old\n  answers\n\n> wait\n# end\n"
	got := replay(t, "a.txt", script, func(line []Command) string {
		played = append(played, line)
		return fmt.Sprintf("  %d\n", len(line))
	})
	if want := "# why\n\n> create s-1 9 n=3 cause='lease ran out' ; note {\"x\":\"a=b\"}\n  2\n\n> wait\n  1\n# end\n"; got != want {
		t.Errorf("it is written as\n%s", got)
	}
	if d := Difference(script, got); !strings.HasPrefix(d, "4:\nwant   old\ngot    2") {
		t.Errorf("the difference is %s", d)
	}
	if len(played) != 2 || len(played[0]) != 2 || played[1][0].Verb != "wait" {
		t.Fatalf("played %v", played)
	}
	c, note := played[0][0], played[0][1]
	if c.Verb != "create" || !slices.Equal(c.Words, []string{"s-1", "9"}) || c.Word(2) != "" || c.WordNumber(1) != 9 || c.WordNumber(2) != 0 ||
		c.Number("n", 1) != 3 || c.Number("m", 7) != 7 || c.Args["cause"] != "lease ran out" || c.Or("cause", "") != "lease ran out" || c.Or("none", "x") != "x" {
		t.Errorf("it is read as %+v", c)
	}
	if note.Word(0) != `{"x":"a=b"}` {
		t.Errorf("a JSON object is read as %+v", note)
	}
}
