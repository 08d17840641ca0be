package cli

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/setting"
	"atelier/tuner/train"
	"atelier/tuner/weights"

	ucli "github.com/urfave/cli/v2"
)

//go:embed completion.bash
var completionBash string

//go:embed completion.zsh
var completionZsh string

//go:embed completion.fish
var completionFish string

// completionCommand also has the hidden half of its protocol, `completion words`, which the scripts
// call: this program alone knows its verbs, so no script falls behind it.
func (e *Env) completionCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "completion", Usage: "print a shell's completion script", ArgsUsage: "bash|zsh|fish",
		Description: "The script completes commands, flags, their choices, files, and the ids of sweeps and the\n" +
			"names of workers of the cluster that ATELIER_ADDR names. It asks this program itself:\n" +
			"`atelier completion words -- WORD ...` prints what the last word may become.",
		Action: e.completion}, 1, -1,
		"source <(atelier completion bash)                                    # this shell; or into ~/.bashrc",
		"atelier completion zsh > \"${fpath[1]}/_atelier\"",
		"atelier completion fish > ~/.config/fish/completions/atelier.fish")
}

// completion prints a shell's script, or, asked by the script, candidates: WORD, a tab, what it is.
func (e *Env) completion(c *ucli.Context) error {
	shell := c.Args().First()
	script, ok := map[string]string{"bash": completionBash, "zsh": completionZsh, "fish": completionFish}[shell]
	switch {
	case shell == "words":
		for _, w := range e.complete(c.Context, e.app(), c.String("addr"), c.Args().Tail()) {
			fmt.Fprintln(e.Out, strings.TrimSuffix(w.word+"\t"+w.what, "\t"))
		}
		return nil
	case !ok || c.NArg() > 1:
		return usage("completion: give the shell: bash, zsh or fish")
	}
	_, err := fmt.Fprint(e.Out, script)
	return err
}

// candidate is what a word may become. The word ":files" leaves it to the shell.
type candidate struct{ word, what string }

var shellFiles = []candidate{{":files", ""}}

// complete tells what the last word may become after those before it. It reads
// the words as arrange does: flags may stand anywhere. It never fails: what is not understood has no candidates,
// since a shell would show an error in the middle of the person's line.
func (e *Env) complete(ctx context.Context, app *ucli.App, addr string, words []string) []candidate {
	words = rejoin(words)
	if len(words) == 0 {
		words = []string{""}
	}
	last := words[len(words)-1]
	level, args := app.Commands, []string{} // the command's arguments before the word
	var leaf *ucli.Command
	var path []string
	find := func(name string) ucli.Flag {
		var f ucli.Flag
		if leaf != nil {
			f = flagNamed(leaf.Flags, name)
		}
		if f == nil {
			f = flagNamed(app.Flags, name)
		}
		return f
	}
	known := contextsOf(app)
	value := func(f ucli.Flag, last, before string) []candidate {
		if f != nil && f.Names()[0] == "context" {
			return known.words(last, before)
		}
		if d := documentOf(leaf); d != nil && f != nil && f.Names()[0] == "resume" {
			return e.resumables(d, last, before)
		}
		return values(leaf, f, last, before)
	}
	argument := func(args []string) []candidate {
		if len(path) > 0 && path[0] == "context" && leaf != nil && strings.Contains(leaf.ArgsUsage, "NAME") {
			return known.words(last, "")
		}
		return e.completeArgument(ctx, path, leaf, args, last, addr)
	}
	// What stands before the word decides what it may be: verb, value of a flag, argument.
	for i := 0; i < len(words)-1; i++ {
		w := words[i]
		if w == "--" {
			return argument(append(args, words[i+1:len(words)-1]...))
		}
		if len(w) > 1 && w[0] == '-' {
			name, given, joined := strings.Cut(strings.TrimLeft(w, "-"), "=")
			f := find(name)
			if _, isBool := f.(*ucli.BoolFlag); f == nil || isBool {
				continue
			}
			if !joined {
				// The word is the value of the flag before it.
				if i++; i == len(words)-1 {
					return value(f, last, "")
				}
				given = words[i]
			}
			switch f.Names()[0] {
			case "addr":
				addr = given
			case "context":
				addr = known.Contexts[given].Addr
			}
			continue
		}
		if leaf != nil {
			args = append(args, w)
			continue
		}
		next := commandNamed(level, w)
		if next == nil {
			return nil
		}
		path = append(path, next.Name)
		if level = next.Subcommands; len(level) == 0 {
			leaf = next
		}
	}
	// --flag=VALUE is one word to most shells.
	if strings.HasPrefix(last, "-") {
		if name, begun, joined := strings.Cut(last, "="); joined {
			return value(find(strings.TrimLeft(name, "-")), begun, name+"=")
		}
		return flags(leaf, app, last)
	}
	if leaf == nil {
		var out []candidate
		for _, c := range level {
			if strings.HasPrefix(c.Name, last) && !c.Hidden {
				out = append(out, candidate{c.Name, c.Usage})
			}
		}
		return out
	}
	return argument(args)
}

// rejoin undoes bash's habit of taking words apart at : and =.
func rejoin(words []string) []string {
	var out []string
	// bash breaks words at : and =, so that s-aaaa/1:x or --addr=HOST:PORT come in pieces.
	glue := false
	for i, w := range words {
		if n := len(out); n > 0 && (w == ":" || w == "=") {
			if out[n-1] += w; w == "=" && strings.HasPrefix(out[n-1], "--") {
				// --flag = value: the value is a word of its own to bash.
				out[n-1] = strings.TrimSuffix(out[n-1], "=")
				if i == len(words)-1 {
					out = append(out, "")
				}
				continue
			}
			glue = true
			continue
		}
		if glue {
			out[len(out)-1] += w
		} else {
			out = append(out, w)
		}
		glue = false
	}
	return out
}

// flags completes the name of a flag.
func flags(leaf *ucli.Command, app *ucli.App, last string) []candidate {
	var out []candidate
	add := func(all []ucli.Flag) {
		for _, f := range all {
			d, ok := f.(ucli.DocGenerationFlag)
			if v, vis := f.(ucli.VisibleFlag); !ok || vis && !v.IsVisible() {
				continue
			}
			what, _, _ := strings.Cut(strings.ReplaceAll(d.GetUsage(), "`", ""), "\n")
			if w := "--" + f.Names()[0]; strings.HasPrefix(w, last) {
				out = append(out, candidate{w, what})
			}
		}
	}
	if leaf != nil {
		add(leaf.Flags)
	}
	add(app.Flags)
	if strings.HasPrefix("--help", last) {
		out = append(out, candidate{"--help", "how it is used, with examples"})
	}
	return out
}

// values completes what a flag takes; before stands before it in the same word. The
// words are those of the flag's row in its document, else those of its usage.
func values(leaf *ucli.Command, f ucli.Flag, last, before string) []candidate {
	if f == nil {
		return nil
	}
	name := f.Names()[0]
	d, documented := f.(ucli.DocGenerationFlag)
	if !documented {
		return nil
	}
	words := wordsOf(d.GetUsage())
	if doc := documentOf(leaf); doc != nil {
		if name == "set" {
			return keyValues(doc.Table, last, before)
		}
		if row := slices.IndexFunc(doc.Table, func(s setting.Setting) bool { return s.Flag == name }); row >= 0 {
			words = settingWords(doc.Table[row])
		}
		if name == train.KeyWeights {
			if named := begun(append(weights.Names(), "none"), last, before); len(named) > 0 {
				return named
			}
			return shellFiles
		}
	}
	if words == nil && pathLike(placeholder(d.GetUsage())) {
		return shellFiles
	}
	// Of a list with commas the last word is completed, by those that are not in it yet.
	if at := strings.LastIndexByte(last, ','); at >= 0 && strings.HasSuffix(placeholder(d.GetUsage()), "[,..]") {
		there := strings.Split(last[:at], ",")
		words = slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(there, w) })
		last, before = last[at+1:], before+last[:at+1]
	}
	return begun(words, last, before)
}

// settingWords are the values of a setting that is one of a few, or has some that
// are usual.
func settingWords(s setting.Setting) []string {
	switch {
	case s.Type.Choices != nil:
		return s.Type.Choices
	case s.Type.Switch:
		return []string{"true", "false"}
	}
	return wordsOf(s.Usage)
}

// begun are the words that begin as the last one does.
func begun(words []string, last, before string) (out []candidate) {
	for _, w := range words {
		if strings.HasPrefix(w, last) {
			out = append(out, candidate{before + w, ""})
		}
	}
	return out
}

// keyValues completes KEY=VALUE: the keys, then what one takes.
func keyValues(t setting.Table, last, before string) (out []candidate) {
	key, value, joined := strings.Cut(last, "=")
	for _, s := range t {
		switch {
		case s.Block != "":
		case !joined && strings.HasPrefix(s.Name, key):
			out = append(out, candidate{before + s.Name + "=", strings.ReplaceAll(s.Help, "\n", " ")})
		case joined && s.Name == key:
			out = append(out, begun(settingWords(s), value, before+key+"=")...)
		}
	}
	return out
}

// explainable completes a key of explain: the documents, then their keys.
func explainable(last string) (out []candidate) {
	for _, d := range references {
		if strings.HasPrefix(d.Command, last) {
			out = append(out, candidate{d.Command, d.About()})
		}
		if !strings.HasPrefix(last, d.Command+".") {
			continue
		}
		for _, s := range d.Table {
			if key := d.Command + "." + s.Name; strings.HasPrefix(key, last) {
				out = append(out, candidate{key, strings.ReplaceAll(s.Help, "\n", " ")})
			}
		}
	}
	return append(out, begun([]string{exitTopic}, last, "")...)
}

// placeholder is the word between backquotes: what a flag takes.
func placeholder(usage string) string {
	_, rest, _ := strings.Cut(usage, "`")
	word, _, _ := strings.Cut(rest, "`")
	return word
}

// pathLike reports whether a placeholder is something on a disk, which the shell completes better.
func pathLike(word string) bool {
	return slices.ContainsFunc([]string{"FILE", "DIR", "FOLDER", "PATH", "SPEC", "IMAGE", "CHECKPOINT", "WEIGHTS"}, func(p string) bool { return strings.Contains(word, p) })
}

// patience with a cluster while a person waits for a word.
const completionPatience = 700 * time.Millisecond

// completeArgument completes the argument after those before it, by what the verb's usage calls it.
func (e *Env) completeArgument(ctx context.Context, path []string, leaf *ucli.Command, args []string, last, addr string) []candidate {
	if leaf == nil {
		return nil
	}
	// The verb's own usage is the table of what its arguments are.
	want := strings.Fields(strings.NewReplacer("[", " ", "]", " ", "...", " ").Replace(leaf.ArgsUsage))
	if len(want) == 0 {
		return nil
	}
	word := want[min(len(args), len(want)-1)]
	switch {
	case word == "DIR" && documentOf(leaf) != nil: // tune --resume DIR
		return e.resumables(documentOf(leaf), last, "")
	case pathLike(word), word == "IN", word == "OUT":
		return shellFiles
	case strings.Contains(word, "|"):
		return begun(strings.Split(word, "|"), last, "")
	case word == "KEY" && path[0] == "explain":
		return explainable(last)
	case word == "NAME" && path[0] == "weights":
		return begun(weights.Names(), last, "")
	case word == "TRIAL" && len(args) > 0:
		return e.fromCluster(ctx, addr, last, func(ctx context.Context, api *client.Client) []candidate { return e.trialNumbers(ctx, api, args[0]) })
	case word == "SWEEP" || word == "ID" && path[0] != "cluster":
		return e.fromCluster(ctx, addr, last, sweepWords)
	case word == "ID":
		return e.fromCluster(ctx, addr, last, memberIDs)
	case word == "NAME" && path[0] == "worker":
		return e.fromCluster(ctx, addr, last, workerNames)
	}
	return nil
}

// fromCluster asks the cluster, briefly; none is there: no candidates.
func (e *Env) fromCluster(ctx context.Context, addr, last string, ask func(context.Context, *client.Client) []candidate) []candidate {
	addrs, err := client.ParseAddrs(addr)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	opts, err := e.credentials(addrs)
	if err != nil {
		return nil
	}
	api := client.New(addrs, append(opts, client.WithRetryFor(completionPatience))...)
	defer api.Close()
	return slices.DeleteFunc(ask(ctx, api), func(c candidate) bool { return !strings.HasPrefix(c.word, last) })
}

// trialNumbers are those of a sweep, the newest first, with what became of them.
func (e *Env) trialNumbers(ctx context.Context, api *client.Client, sweep string) (out []candidate) {
	const most = 200
	id := sweep
	if !wholeID.MatchString(sweep) {
		all, err := api.ListSweeps(ctx, client.Listing{Archived: true})
		if err != nil {
			return nil
		}
		s, err := e.findSweep(sweep, all, anySweep)
		if err != nil {
			return nil
		}
		id = s.ID
	}
	for t, err := range api.Trials(ctx, id, client.Which{Limit: most}) {
		if err != nil {
			return nil
		}
		what := t.Status.String()
		if t.Value != nil {
			what += ", " + shortValue(t.Value)
		}
		out = append(out, candidate{count(t.Number), what + ", " + pairs(t.Params)})
	}
	slices.Reverse(out)
	return out
}

// memberIDs are the coordinators.
func memberIDs(ctx context.Context, api *client.Client) []candidate {
	all, _ := api.Members(ctx)
	var out []candidate
	for _, m := range all {
		out = append(out, candidate{m.ID, m.APIAddress})
	}
	return out
}

// workerNames are those that the leader has heard of.
func workerNames(ctx context.Context, api *client.Client) []candidate {
	all, _ := api.Workers(ctx)
	var out []candidate
	for _, w := range all {
		out = append(out, candidate{w.Name, w.State})
	}
	return out
}
