package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/nearest"
	"atelier/common/setting"

	ucli "github.com/urfave/cli/v2"
)

// arrange puts a command line into the one order that urfave/cli understands:
// global flags, verbs, the verb's flags, arguments. The library stops reading
// flags at the first argument and then ignores the rest silently; here a flag
// counts wherever it stands before a "--". Unknown verbs and flags are refused
// with the nearest known one. Values are looked at here too, see typed. It runs before anything else: a word that is
// not understood ends the command while nothing has been done.
func arrange(app *ucli.App, args []string, home string) ([]string, error) {
	var global, path, own, rest []string
	level := app.Commands // commands of this level; nil once a verb is reached
	var leaf *ucli.Command
	help := false
	where := func() string { return strings.Join(append([]string{app.Name}, path...), " ") }

	for i := 0; i < len(args); i++ {
		a := args[i]
		// Whatever follows is an argument, whatever it looks like.
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		// A lone - is an argument: standard input or output.
		if len(a) > 1 && a[0] == '-' {
			name, value, joined := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
			if name == "help" || name == "h" {
				help = true
				continue
			}
			// Of the whole program only: a verb may have a -v of its own.
			if leaf == nil && len(path) == 0 && (name == "version" || name == "v") {
				return []string{"--version"}, nil
			}
			var f ucli.Flag
			to := &own
			if leaf != nil {
				f = flagNamed(leaf.Flags, name)
			}
			if f == nil {
				f, to = flagNamed(app.Flags, name), &global
			}
			if f == nil {
				return nil, unknownFlag(where(), a, name, leaf, app)
			}
			if bare := i+1 == len(args) || strings.HasPrefix(args[i+1], "-"); !joined && bare && optional(f) {
				joined = true
			} else if _, isBool := f.(*ucli.BoolFlag); !isBool && !joined {
				i++
				if i == len(args) {
					return nil, usage("%s: flag %s needs a value", where(), a)
				}
				value, joined = args[i], true
			}
			word := "--" + f.Names()[0]
			if joined {
				var err error
				if value, err = typed(f, value, home); err != nil {
					said, _, _ := strings.Cut(a, "=")
					return nil, usage("%s: %s: %s", where(), said, err)
				}
				word += "=" + value
			}
			*to = append(*to, word)
			continue
		}
		if leaf != nil {
			rest = append(rest, a)
			continue
		}
		if a == "help" && len(rest) == 0 {
			help = true
			continue
		}
		next := commandNamed(level, a)
		if next == nil {
			return nil, unknownCommand(where(), a, path, level, app)
		}
		path = append(path, next.Name)
		if level = next.Subcommands; len(level) == 0 {
			leaf = next
		}
	}

	if leaf == nil && !help {
		return nil, &noCommand{path}
	}
	out := append(global, path...)
	if help {
		return append(out, "--help"), nil
	}
	out = append(out, own...)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out, nil
}

// typed is a flag's value as the library may read it. It takes 010 for eight
// and 0x10 for sixteen, and hands ~/x on as a folder that is called ~ (a shell
// leaves --out=~/x alone): numbers are decimal and span the whole text, ~/ is
// the home folder wherever the help speaks of a file or a folder.
func typed(f ucli.Flag, value, home string) (string, error) {
	switch f.(type) {
	case *ucli.IntFlag, *ucli.Int64Flag, *ucli.UintFlag, *ucli.Uint64Flag:
		v, ok, err := setting.Number(value)
		if err != nil {
			return "", err
		}
		n, signed := v.(int64)
		if _, float := v.(float64); !ok || float && strings.ContainsAny(value, ".eE") {
			return "", fmt.Errorf("%q is not a whole number", value)
		} else if float {
			return "", fmt.Errorf("%s is out of range", value)
		}
		switch f.(type) {
		case *ucli.UintFlag, *ucli.Uint64Flag:
			if signed && n < 0 {
				return "", fmt.Errorf("%s is less than 0", value)
			}
		default:
			if !signed {
				return "", fmt.Errorf("%s is out of range", value)
			}
		}
	case *ucli.DurationFlag:
		if _, err := time.ParseDuration(value); err != nil {
			if _, ok, _ := setting.Number(value); ok {
				return "", fmt.Errorf("%s lacks its unit: %[1]ss, %[1]sm or %[1]sh", value)
			}
			return "", fmt.Errorf("%q is not a duration such as 90s, 10m or 1h30m", value)
		}
	case *ucli.BoolFlag:
		if _, err := strconv.ParseBool(value); err != nil {
			return "", fmt.Errorf("%q is neither true nor false; the flag alone means true", value)
		}
	case *ucli.Float64Flag:
		if _, ok, err := setting.Number(value); err != nil {
			return "", err
		} else if !ok {
			return "", fmt.Errorf("%q is not a number", value)
		}
	default:
		if d, ok := f.(ucli.DocGenerationFlag); ok && isPath(d.GetUsage()) {
			return setting.Expand(value, home)
		}
	}
	return value, nil
}

// isPath tells by a flag's usage whether its value is a path: `FILE` or so.
func isPath(usage string) bool {
	return slices.Contains([]string{"FILE", "DIR", "FOLDER", "PATH"}, strings.Trim(placeholder(usage), "[]"))
}

// optional tells by a flag's usage, `[PATH]`, whether its value may be left out: it
// is empty then.
func optional(f ucli.Flag) bool {
	d, ok := f.(ucli.DocGenerationFlag)
	return ok && strings.HasPrefix(placeholder(d.GetUsage()), "[")
}

// flagNamed finds a flag; words may be joined by _ as well as by -.
func flagNamed(flags []ucli.Flag, name string) ucli.Flag {
	name = strings.ReplaceAll(name, "_", "-")
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

// commandNamed finds a verb of one level, by its name or an alias.
func commandNamed(level []*ucli.Command, name string) *ucli.Command {
	for _, c := range level {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// unknownFlag names the nearest flag of the verb or of all; before a verb it may be that the flag
// only stands too early.
func unknownFlag(where, given, name string, leaf *ucli.Command, app *ucli.App) error {
	flags := app.Flags
	if leaf != nil {
		flags = append(append([]ucli.Flag{}, leaf.Flags...), flags...)
	}
	var known []string
	for _, f := range flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				known = append(known, n)
			}
		}
	}
	text := fmt.Sprintf("%s: unknown flag %s", where, given)
	if leaf == nil {
		text += " (flags of a command come after it)"
	}
	if n, ok := nearest.Close(name, known); ok {
		return usage("%s; did you mean --%s?", text, n)
	}
	return usage("%s; see %s --help", text, where)
}

// verbatim keeps the library from trimming the blanks of a flag's value: a
// file's name may begin with one.
func verbatim(commands []*ucli.Command) {
	for _, c := range commands {
		for _, f := range c.Flags {
			if list, ok := f.(*ucli.StringSliceFlag); ok {
				list.KeepSpace = true
			}
		}
		verbatim(c.Subcommands)
	}
}
