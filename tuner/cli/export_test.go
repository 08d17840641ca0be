package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/trial"
	"atelier/tuner/serve"

	ucli "github.com/urfave/cli/v2"
)

// Arrange orders a command line for the tree of verbs.
func Arrange(args []string) ([]string, error) { return arrange((&Env{}).app(), args, "/home/ada") }

// Verbs calls f for each verb with its whole name and the path to it.
func Verbs(f func(path []string, c *ucli.Command)) { walk((&Env{}).app().Commands, nil, f) }

func walk(level []*ucli.Command, path []string, f func(path []string, c *ucli.Command)) {
	for _, c := range level {
		p := append(append([]string{}, path...), c.Name)
		if len(c.Subcommands) == 0 {
			f(p, c)
		}
		walk(c.Subcommands, p, f)
	}
}

// Boards lists what the web app offers of a cluster's leaderboards.
func Boards(ctx context.Context, addr string) ([]serve.Entry, error) {
	api := client.New([]string{addr})
	defer api.Close()
	return newBoards(api, client.Files{}, time.Now).List(ctx)
}

// Parse reads a command line, counts its arguments and does nothing.
func Parse(args []string) error {
	e := &Env{Out: io.Discard, Err: io.Discard}
	app := e.app()
	argv, err := arrange(app, args, "/home/ada")
	if err != nil {
		return err
	}
	walk(app.Commands, nil, func(_ []string, c *ucli.Command) { c.Action = func(*ucli.Context) error { return nil } })
	ctx, cut := withLimit(context.Background())
	defer cut.stop()
	return app.RunContext(ctx, append([]string{app.Name}, argv...))
}

// WatchEvery sets how often a list that is watched is read, until the test ends.
func WatchEvery(t interface{ Cleanup(func()) }, d time.Duration) {
	was := watchEvery
	watchEvery = d
	t.Cleanup(func() { watchEvery = was })
}

// Fit sets a table on a screen.
func Fit(head []string, rows [][]string, wide, spare, flex []string, columns int) []string {
	var b strings.Builder
	e := &Env{Screen: true, Width: func() int { return columns }}
	e.writeTable(&b, table{head: head, rows: rows, wide: wide, spare: spare, flex: flex}, false)
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// References are the documents whose keys are explained.
var References = references

// RecodeContexts reads a file of contexts and writes it again with one more.
func RecodeContexts(text string) (string, error) {
	c, err := decodeContexts("config.yaml", []byte(text))
	if err != nil {
		return "", err
	}
	if c.Contexts == nil {
		c.Contexts = map[string]contextEntry{}
	}
	c.Contexts["added"] = contextEntry{Addr: "h:1"}
	b, err := c.encode("config.yaml")
	return string(b), err
}

// Plural is so many of something.
func Plural(n int64, word string) string { return plural(n, word) }

// SweepRows are the rows of a list of sweeps.
func SweepRows(all []trial.Sweep) [][]string { return (&Env{Now: time.Now}).sweepTable(all).rows }

// WordsOf are the words of a flag's usage.
var WordsOf = wordsOf
