package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"atelier/common/nearest"

	ucli "github.com/urfave/cli/v2"
)

// listing is a verb that lists records: what is read, which of it, in which order,
// in which form, once or again and again.
type listing[T any] struct {
	read  func(context.Context) ([]T, error) // those of --state; --limit too where its order is that of the list
	name  func(T) string                     // that other verbs take, for -o name and -q
	shape func([]T) table
	check func([]T) error // refuses what was asked for of them; nil = nothing
	note  func([]T)       // says on standard error what there is to say of them; nil = nothing
}

// listFlags are those of every listing. A list with states has --state.
func listFlags(states []string, most string) []ucli.Flag {
	out := []ucli.Flag{
		&ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, wide, name, json, yaml or csv"},
		&ucli.StringFlag{Name: "columns", Usage: "only these `KEYS` of -o json, such as id,best.value"},
		&ucli.StringFlag{Name: "sort", Usage: "order by a `KEY` of -o json, such as best.value; KEY:desc for the greatest first"},
		&ucli.IntFlag{Name: "limit", Usage: most},
		&ucli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "stay, and show what changes"},
	}
	if states != nil {
		out = append(out, &ucli.StringSliceFlag{Name: "state", Usage: "only those in `STATE[,..]`: " + strings.Join(states, ", ")})
	}
	return out
}

// statesOf reads --state: lists with commas, given once or more; another word is a
// usage error with the nearest.
func statesOf(c *ucli.Context, known []string) (out []string, err error) {
	for _, list := range c.StringSlice("state") {
		for word := range strings.SplitSeq(list, ",") {
			if word = strings.TrimSpace(word); !slices.Contains(known, word) {
				text := fmt.Sprintf("--state %s: want one of %s", word, strings.Join(known, ", "))
				if n, ok := nearest.Close(word, known); ok {
					text += fmt.Sprintf("; did you mean %q?", n)
				}
				return nil, usage("%s", text)
			}
			out = append(out, word)
		}
	}
	return out, nil
}

// checkList refuses what cannot be shown before anything is asked of a cluster.
func checkList(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	if n := c.Int("limit"); n < 0 {
		return usage("--limit %d: want 0 (all) or more", n)
	}
	if f := c.String("output"); c.Bool("watch") && f != "table" && f != "wide" {
		return usage("--watch shows tables: it does not go with -o %s", f)
	}
	return nil
}

// get reads, orders and limits.
func (l listing[T]) get(c *ucli.Context) ([]T, error) {
	all, err := l.read(c.Context)
	if err != nil {
		return nil, err
	}
	if by := c.String("sort"); by != "" {
		r, err := readRecords(all)
		if err != nil {
			return nil, err
		}
		places, err := r.order(by)
		if err != nil {
			return nil, err
		}
		sorted := make([]T, len(places))
		for i, at := range places {
			sorted[i] = all[at]
		}
		all = sorted
	}
	if n := c.Int("limit"); n > 0 && len(all) > n {
		all = all[:n]
	}
	if l.check != nil {
		return all, l.check(all)
	}
	return all, nil
}

// show prints the list; with --watch until it is interrupted.
func show[T any](e *Env, c *ucli.Context, l listing[T]) error {
	all, err := l.get(c)
	if err != nil {
		return err
	}
	if l.note != nil {
		l.note(all)
	}
	switch {
	case c.Bool("watch"):
		return watch(e, c, l, all)
	case c.Bool("quiet") || c.String("output") == "name":
		for _, x := range all {
			if _, err := fmt.Fprintln(e.Out, l.name(x)); err != nil {
				return err
			}
		}
		return nil
	}
	return e.print(c, all, func() table { return l.shape(all) })
}

// watchEvery is how often a list that is watched is read.
var watchEvery = 2 * time.Second

// home moves a screen's cursor to its first place and clears what follows.
const home = "\x1b[H\x1b[2J"

// watch shows the list and what becomes of it: a screen is drawn anew; elsewhere
// the whole list is followed by the rows that changed, and a line for what is gone.
func watch[T any](e *Env, c *ucli.Context, l listing[T], all []T) error {
	var before map[string]bool
	var names []string
	for {
		t := l.shape(all)
		if by := c.String("columns"); by != "" {
			r, err := readRecords(all)
			if err == nil {
				err = r.choose(by)
			}
			if err != nil {
				return err
			}
			t = r.table()
		}
		var b strings.Builder
		if e.screen() > 0 && e.environ("TERM") != "dumb" {
			b.WriteString(home)
			e.writeTable(&b, t, c.String("output") == "wide")
		} else {
			before, names = changes(&b, t, before, names, l, all)
		}
		if _, err := io.WriteString(e.Out, b.String()); err != nil {
			return err
		}
		select {
		case <-c.Context.Done():
			return c.Context.Err()
		case <-time.After(watchEvery):
		}
		var err error
		if all, err = l.get(c); err != nil {
			return err
		}
	}
}

// changes writes the rows of a table that were not there before, and the names
// that are gone. What moves by itself, such as an age, is no change.
func changes[T any](w io.Writer, t table, before map[string]bool, names []string, l listing[T], all []T) (map[string]bool, []string) {
	t = t.clean()
	still := t
	for _, h := range t.moves {
		still = still.without(h)
	}
	now := map[string]bool{}
	lines := t.lines()
	for i, row := range still.rows {
		key := strings.Join(row, "\x00")
		now[key] = true
		if before != nil && !before[key] {
			fmt.Fprintln(w, lines[i+1])
		}
	}
	if before == nil {
		writeLines(w, lines, 0)
	}
	var there []string
	for _, x := range all {
		there = append(there, l.name(x))
	}
	for _, n := range names {
		if !slices.Contains(there, n) {
			fmt.Fprintf(w, "- %s\n", n)
		}
	}
	return now, there
}
