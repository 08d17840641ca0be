package man

import "testing"

// Paragraphs are filled and tables folded beside their first column; examples and words too long for a line stay.
func TestFold(t *testing.T) {
	const help = `x submit - submit a sweep

USAGE:
   x submit [options] SPEC

SPEC is a file, or - for standard input, in one of
the formats that are known. With --follow it waits.
It is read once.

one    the first of several, longer than a line may be
twelve the last

EXAMPLES:
   x submit an-example-that-is-longer-than-the-width.yaml --follow

OPTIONS:
   --follow, -f                                  wait until it has ended and show how far it is
   --only STATES, --on STATES [ --only STATES ]  post these only
   --help                                        show help

Further options (--addr, --timeout): x --help
`
	const want = `x submit - submit a sweep

USAGE:
   x submit [options] SPEC

SPEC is a file, or - for standard input,
in one of the formats that are known.
With --follow it waits.
It is read once.

one     the first of several, longer
        than a line may be
twelve  the last

EXAMPLES:
   x submit an-example-that-is-longer-than-the-width.yaml --follow

OPTIONS:
   --follow, -f  wait until it has ended
                 and show how far it is
   --only STATES, --on STATES
                 post these only
   --help        show help

Further options (--addr, --timeout): x
--help
`
	if got := Fold(help, 40); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for columns, want := range map[int]int{0: 80, 20: 40, 72: 72, 200: 100} {
		if got := HelpWidth(columns); got != want {
			t.Errorf("%d columns: %d, want %d", columns, got, want)
		}
	}
}
