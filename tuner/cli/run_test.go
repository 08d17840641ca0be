package cli_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"atelier/tuner/cli"
)

type result struct {
	code     int
	out, err string
}

func run(t *testing.T, dir string, args ...string) result {
	t.Helper()
	return onScreen(t, dir, 0, args...)
}

// onScreen runs a command whose output goes to a terminal of so many columns; 0 = it goes elsewhere.
func onScreen(t *testing.T, dir string, columns int, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: func() time.Time { return now }, Dir: dir, Screen: columns > 0, Width: func() int { return max(columns, 20) }}
	if columns == 0 {
		e.Width = func() int { return 80 }
	}
	code := e.Run(t.Context(), args)
	return result{code, out.String(), errs.String()}
}
