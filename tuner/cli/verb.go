package cli

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/settings"

	ucli "github.com/urfave/cli/v2"
)

// verb completes a command that does something: its arguments are counted
// (from least to most; most < 0 = any number), its help shows examples.
func verb(c *ucli.Command, least, most int, examples ...string) *ucli.Command {
	c.HideHelpCommand = true
	c.OnUsageError = onUsageError
	c.Before = func(x *ucli.Context) error {
		if n := x.NArg(); n < least || most >= 0 && n > most {
			if most == 0 {
				return usage("%s takes no arguments, got %q%s; see %s --help", x.Command.HelpName, x.Args().First(), meantFlag(x), x.Command.HelpName)
			}
			return usage("%s: %s; usage: %s", x.Command.HelpName, arguments(n), strings.TrimSpace(x.Command.HelpName+" "+c.ArgsUsage))
		}
		return nil
	}
	c.UsageText = strings.Join(examples, "\n") // its group shows the first
	c.CustomHelpTemplate = verbHelp(c.ArgsUsage, examples)
	return c
}

// meantFlag is the flag that an argument probably belongs to.
func meantFlag(x *ucli.Context) string {
	arg := x.Args().First()
	has := func(name string) bool {
		return slices.ContainsFunc(x.Command.Flags, func(f ucli.Flag) bool { return slices.Contains(f.Names(), name) })
	}
	switch {
	case has("model") && slices.Contains(settings.Models(), arg):
		return "; did you mean --model " + arg + "?"
	case has("data"):
		return "; did you mean --data " + arg + "?"
	}
	return ""
}

// arguments says how many were given.
func arguments(n int) string {
	switch n {
	case 0:
		return "an argument is missing"
	case 1:
		return "1 argument given"
	}
	return fmt.Sprintf("%d arguments given", n)
}

// group is a verb of verbs; its help shows the first example of each.
func group(name, what string, verbs ...*ucli.Command) *ucli.Command {
	return &ucli.Command{Name: name, Usage: what, Subcommands: verbs, HideHelpCommand: true, OnUsageError: onUsageError,
		CustomHelpTemplate: ucli.SubcommandHelpTemplate + firstExamples(verbs)}
}

// firstExamples are one example of each verb, for the help of what holds them.
func firstExamples(verbs []*ucli.Command) string {
	var b strings.Builder
	b.WriteString("\nEXAMPLES:\n")
	for _, v := range verbs {
		if first, _, _ := strings.Cut(v.UsageText, "\n"); first != "" {
			b.WriteString("   " + plainTemplate(first) + "\n")
		}
	}
	return b.String()
}

// plainTemplate is a text as a template shows it unchanged.
func plainTemplate(s string) string { return strings.ReplaceAll(s, "{{", `{{"{{"}}`) }

// verbHelp is the help of one verb: examples come before the options, for most people read no
// further.
func verbHelp(arguments string, examples []string) string {
	var b strings.Builder
	b.WriteString(`{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .VisibleFlags}} [options]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{if .Description}}

{{.Description}}{{end}}
`)
	if strings.Contains(arguments, "SWEEP") {
		b.WriteString("\n" + sweepHelp + "\n")
	}
	b.WriteString("\nEXAMPLES:\n")
	for _, x := range examples {
		b.WriteString("   " + plainTemplate(x) + "\n")
	}
	b.WriteString(`{{if .VisibleFlags}}
OPTIONS:{{range .VisibleFlags}}
   {{.}}{{end}}
{{end}}
Further options (--addr, --context, --timeout, --retry-for): atelier --help
`)
	return b.String()
}
