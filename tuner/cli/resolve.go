package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"atelier/common/client"
	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/trial"

	ucli "github.com/urfave/cli/v2"
)

// How a person names a sweep: by its id or the beginning of one (with or without
// s-), by its name, or by its age: @ is the newest sweep and @2 the one before it,
// NAME@ and NAME@2 are the same among the sweeps of one name.

// sweepHelp is shown wherever a command takes a sweep.
const sweepHelp = "SWEEP is an id or the beginning of one, a name, @ for the newest sweep, @2 for the one\nbefore it, or NAME@ for the newest of a name. Where models or results of a training are wanted,\n@ leaves out runs of inference."

// wholeID is an id as the cluster draws it. It is taken as it is: what a script
// names by id costs no further call, and no name can shadow it.
var wholeID = regexp.MustCompile(`^s-[a-z0-9]{8}$`)

// mostCandidates bounds how many sweeps an ambiguous name lists.
const mostCandidates = 10

// sweepArg is the id of the sweep that the first argument names.
func (e *Env) sweepArg(c *ucli.Context, api *client.Client) (string, error) {
	return e.sweepID(c, api, c.Args().First())
}

// trainingArg is sweepArg for a command that takes trainings and tunings.
func (e *Env) trainingArg(c *ucli.Context, api *client.Client) (string, error) {
	return e.trainingID(c, api, c.Args().First())
}

// trialWords are the arguments SWEEP TRIAL, or SWEEP/TRIAL in one, apart; the
// number is "" where there is none.
func trialWords(c *ucli.Context) (sweep, number string) {
	if c.NArg() == 1 {
		return splitTrial(c.Args().First())
	}
	return c.Args().First(), c.Args().Get(1)
}

// splitTrial takes SWEEP/TRIAL apart; a name may have a / of its own.
func splitTrial(word string) (sweep, number string) {
	if at := strings.LastIndexByte(word, '/'); at >= 0 {
		return word[:at], word[at+1:]
	}
	return word, ""
}

// trialNumber is the number that the arguments SWEEP TRIAL give.
func trialNumber(c *ucli.Context) (int64, error) {
	_, word := trialWords(c)
	if word == "" {
		return 0, usage("%s: the trial's number is missing; usage: %[1]s %s", c.Command.HelpName, c.Command.ArgsUsage)
	}
	return trialNumbered(c, word)
}

// trialNumbered reads a trial's number.
func trialNumbered(c *ucli.Context, word string) (int64, error) {
	n, err := setting.Whole(word)
	if err != nil || n < 1 {
		return 0, usage("%s: trial %q: want a number from 1", c.Command.HelpName, word)
	}
	return n, nil
}

// trialArg is the id and the number that the arguments SWEEP TRIAL name.
func (e *Env) trialArg(c *ucli.Context, api *client.Client) (string, int64, error) {
	n, err := trialNumber(c)
	if err != nil {
		return "", 0, err
	}
	word, _ := trialWords(c)
	id, err := e.sweepID(c, api, word)
	return id, n, err
}

// choice is which sweeps a word chooses among, and how.
type choice struct {
	client.Listing
	newest func(trial.Sweep) bool // those that @ counts
	strict bool                   // a name does not hide the beginning of another sweep's id
	// trainings leaves runs of inference out of what a word by age counts.
	trainings bool
}

// anySweep is the choice of commands that take nothing away.
var anySweep = choice{Listing: client.Listing{Archived: true}, newest: func(s trial.Sweep) bool { return s.ArchivedMS == 0 }}

// aTraining is the choice of commands that want the models or the results of a training: a word by age counts
// no runs of inference.
var aTraining = choice{Listing: client.Listing{Archived: true}, trainings: true,
	newest: func(s trial.Sweep) bool { return s.ArchivedMS == 0 }}

// strictly is the choice of commands that cannot be taken back.
func (w choice) strictly() choice { w.strict = true; return w }

// sweepID is the id of the sweep that a person's word names. Which sweep that is
// goes to standard error unless the word was the id or --quiet is given: a command
// may be about to stop it.
func (e *Env) sweepID(c *ucli.Context, api *client.Client, word string) (string, error) {
	return e.sweepAmong(c, api, word, anySweep)
}

// trainingID is sweepID for a training or a tuning.
func (e *Env) trainingID(c *ucli.Context, api *client.Client, word string) (string, error) {
	return e.sweepAmong(c, api, word, aTraining)
}

// sweepAmong is sweepID for a choice.
func (e *Env) sweepAmong(c *ucli.Context, api *client.Client, word string, among choice) (string, error) {
	if wholeID.MatchString(word) {
		return word, nil
	}
	all, err := api.ListSweeps(c.Context, among.Listing)
	if err != nil {
		return "", err
	}
	if among.trainings && trial.ByAge.MatchString(word) {
		all = slices.DeleteFunc(all, func(s trial.Sweep) bool { return s.Kind == trial.Inference })
	}
	s, err := e.findSweep(word, all, among)
	if err != nil {
		return "", err
	}
	if !c.Bool("quiet") && word != s.ID {
		e.say("%s is sweep %s", word, strings.Join(slices.DeleteFunc([]string{s.ID, s.Name, s.Status.String()}, func(x string) bool { return x == "" || x == word }), ", "))
	}
	return s.ID, nil
}

// findSweep finds a sweep among all, which are ordered newest first. A whole name
// counts before the beginning of an id, but for a strict choice.
func (e *Env) findSweep(word string, all []trial.Sweep, among choice) (*trial.Sweep, error) {
	pick := func(which func(trial.Sweep) bool) (out []trial.Sweep) {
		for _, s := range all {
			if which(s) {
				out = append(out, s)
			}
		}
		return out
	}
	named := func(name string) []trial.Sweep {
		return pick(func(s trial.Sweep) bool { return s.Name == name })
	}
	if exact := pick(func(s trial.Sweep) bool { return s.ID == word }); len(exact) > 0 {
		return &exact[0], nil
	}
	if m := trial.ByAge.FindStringSubmatch(word); m != nil {
		of, what := pick(among.newest), "sweeps"
		if m[1] != "" {
			of, what = named(m[1]), fmt.Sprintf("sweeps with the name %q", m[1])
		}
		if n, _ := strconv.Atoi(m[2]); max(n, 1) <= len(of) {
			return &of[max(n, 1)-1], nil
		}
		if len(of) == 0 && m[1] != "" {
			return nil, noSweep(m[1], all)
		}
		text := fmt.Sprintf("%s: there are %d %s", word, len(of), what)
		if len(of) == 1 {
			text = fmt.Sprintf("%s: there is 1 %s", word, strings.Replace(what, "sweeps", "sweep", 1))
		}
		if n := len(all) - len(of); m[1] == "" && n > 0 {
			text += fmt.Sprintf(" besides %s, which %s does not count: give the id (atelier sweep list --archived)", plural(n, "archived sweep"), word)
		}
		return nil, notFound("%s", text)
	}
	begins := func(s trial.Sweep) bool {
		return word != "" && (strings.HasPrefix(s.ID, word) || strings.HasPrefix(s.ID, "s-"+word))
	}
	found, what := named(word), fmt.Sprintf("%q is the name of", word)
	switch {
	case len(found) == 0:
		found, what = pick(begins), fmt.Sprintf("%q begins the ids of", word)
	case among.strict:
		both := pick(func(s trial.Sweep) bool { return s.Name == word || begins(s) })
		if len(both) > len(found) {
			found, what = both, fmt.Sprintf("%q is the name or begins the id of", word)
		}
	}
	switch len(found) {
	case 0:
		return nil, noSweep(word, all)
	case 1:
		return &found[0], nil
	}
	text := fmt.Sprintf("%s %d sweeps; give the id of one", what, len(found))
	if strings.HasSuffix(what, "is the name of") {
		text += fmt.Sprintf(", or %s@ for the newest, %s@2 for the one before it", word, word)
	}
	var rows table
	for _, s := range found[:min(len(found), mostCandidates)] {
		rows.rows = append(rows.rows, []string{"  " + s.ID, s.Name, s.Status.String(), e.age(s.CreatedMS) + " old"})
	}
	rows.head = make([]string, 4)
	var lines strings.Builder
	writeTable(&lines, rows)
	if n := len(found) - mostCandidates; n > 0 {
		fmt.Fprintf(&lines, "  and %d older\n", n)
	}
	return nil, usage("%s:\n%s", text, strings.TrimSuffix(lines.String(), "\n"))
}

// noSweep is the error about a sweep that is not there.
func noSweep(word string, all []trial.Sweep) error {
	var known []string
	for _, s := range all {
		known = append(known, s.ID, s.Name)
	}
	if near, ok := nearest.Close(word, slices.DeleteFunc(known, func(s string) bool { return s == "" })); ok {
		return notFound("no sweep has the id or the name %q; did you mean %q?", word, near)
	}
	return notFound("no sweep has the id or the name %q; atelier sweep list shows them", word)
}

// sweepWords are what completion proposes for a sweep: the newest ids, then the
// names, each with what tells it from others.
func sweepWords(ctx context.Context, api *client.Client) []candidate {
	all, _ := api.Sweeps(ctx, 50)
	var out, names []candidate
	for _, s := range all {
		out = append(out, candidate{s.ID, s.Name + ", " + s.Status.String()})
		at := slices.IndexFunc(names, func(c candidate) bool { return c.word == s.Name })
		switch {
		case s.Name == "" || strings.ContainsFunc(s.Name, needsQuotes):
		case at < 0:
			names = append(names, candidate{s.Name, s.ID + ", " + s.Status.String()})
		default:
			// The bare name would be refused.
			names[at] = candidate{s.Name + "@", "the newest of this name: " + names[at].what}
		}
	}
	return append(out, names...)
}

// needsQuotes reports whether a shell would take a character for more than itself.
func needsQuotes(r rune) bool {
	return r <= ' ' || strings.ContainsRune("\"'`$\\;&|<>()*?[]{}~#!", r) || r == 0x7f
}
