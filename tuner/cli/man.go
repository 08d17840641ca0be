package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/exit"
	"atelier/common/files"
	"atelier/common/man"
	"atelier/common/setting"

	ucli "github.com/urfave/cli/v2"
)

func init() { ucli.FlagStringer = man.Help(ucli.FlagStringer) }

func (e *Env) manCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "man", Usage: "write the manual pages", ArgsUsage: "DIR",
		Description: "One page per command in DIR/man1; in DIR/man5 atelier-spec with every key of a spec and\n" +
			"atelier-settings with every setting. Pages of these names are replaced. `make man` adds\n" +
			"those of the coordinator and the worker.",
		Action: e.man}, 1, 1,
		"atelier man ~/.local/share/man && man atelier-sweep", "atelier man pages && man -M pages atelier-spec")
}

// versionCommand prints what --version prints.
func (e *Env) versionCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "version", Usage: "print the version", Action: func(c *ucli.Context) error {
		_, err := fmt.Fprintf(e.Out, "%s version %s\n", c.App.Name, c.App.Version)
		return err
	}}, 0, 0, "atelier version")
}

// man writes the pages into a folder, which is made if it is not there.
func (e *Env) man(c *ucli.Context) error {
	dir := e.path(c.Args().First())
	pages := manPages(e.app())
	for _, p := range pages {
		file := filepath.Join(dir, p.File())
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := files.Write(file, p.Bytes(), 0o644); err != nil {
			return err
		}
	}
	e.say("%s in %s", plural(len(pages), "page"), e.relative(dir))
	return nil
}

// manPages are all pages, each of the same tree of commands and tables of keys as
// the help and the reference.
func manPages(app *ucli.App) []*man.Page {
	pages := []*man.Page{mainPage(app)}
	var names []string
	for _, c := range app.Commands {
		if !c.Hidden {
			pages = append(pages, commandPage(c))
			names = append(names, "atelier-"+c.Name+"(1)")
		}
	}
	pages[0].Heading("SEE ALSO")
	pages[0].Text(strings.Join(append(names, "atelier-spec(5)", "atelier-settings(5)", "atelier-coordinator(8)", "atelier-worker(8)"), ", "))

	spec := man.New("atelier-spec", 5, "the spec of a sweep, key by key")
	spec.Heading("DESCRIPTION")
	spec.Text("A spec is a YAML file (JSON is YAML, too) for atelier sweep submit; with --dry-run that checks it and shows what it would run. " +
		"A name in capitals is your own: a parameter, a label. [] is an item of a list.")
	settings := man.New("atelier-settings", 5, "the settings of atelier train, tune and infer")
	settings.Heading("DESCRIPTION")
	settings.Text("A value is taken from its flag, else from --set KEY=VALUE, else from the environment, else from the configuration file, else it is the default.")
	for _, d := range references {
		if d.Prefix == "" {
			keyItems(spec, d)
			continue
		}
		settings.Heading("ATELIER " + strings.ToUpper(d.Command))
		settings.Text(fmt.Sprintf("File: %s. Environment: %sKEY, such as %s. Flags such as %s.", d.File, d.Prefix, d.Variable, d.Flags))
		keyItems(settings, d)
	}
	return append(pages, spec, settings)
}

// keyItems writes every key of a document.
func keyItems(p *man.Page, d setting.Document) {
	for _, s := range d.Table {
		if s.Section != "" {
			if d.Prefix == "" {
				p.Heading(strings.ToUpper(s.Section))
			} else {
				p.Sub(s.Section)
			}
		}
		x := describe(d, &s)
		p.Item(s.Name, x.Help)
		takes := "Takes " + x.Takes + ". Without it: " + x.Default + "."
		if s.Needed {
			takes = "Takes " + x.Takes + ". It is needed."
		}
		if s.Of != "" {
			takes = "Of " + s.Of + ". " + takes
		}
		p.More(takes)
		if x.Example != "" {
			p.More("Example: " + x.Example)
		}
		if x.Flag != "" {
			p.More("Flag: " + x.Flag)
		}
	}
}

// mainPage is atelier(1).
func mainPage(app *ucli.App) *man.Page {
	p := man.New(app.Name, 1, app.Usage)
	p.Heading("SYNOPSIS")
	p.Text(app.Name + " [OPTIONS] COMMAND [ARGUMENTS]")
	p.Heading("DESCRIPTION")
	p.Text("Results go to standard output in the format asked for, messages to standard error. Options may be before or after the command and its arguments; after -- every word is an argument.")
	p.Heading("COMMANDS")
	for _, c := range app.Commands {
		if !c.Hidden {
			p.Item(app.Name+" "+c.Name, c.Usage+"; atelier-"+c.Name+"(1)")
		}
	}
	p.Heading("OPTIONS")
	p.Flags(app.Flags)
	p.ExitStatus(exit.Atelier)
	p.Heading("FILES")
	for _, d := range references {
		if d.Prefix != "" {
			p.Item(d.File, d.About()+", all of them with their defaults; atelier-settings(5)")
		}
	}
	return p
}

// commandPage is the page of a command, or of a group with all of its commands.
func commandPage(c *ucli.Command) *man.Page {
	p := man.New("atelier-"+c.Name, 1, c.Usage)
	if len(c.Subcommands) == 0 {
		p.Heading("SYNOPSIS")
		p.Text(synopsis("atelier "+c.Name, c))
		p.Heading("DESCRIPTION")
		p.Text(capital(c.Usage) + "." + "\n\n" + c.Description)
		if len(c.Flags) > 0 {
			p.Heading("OPTIONS")
			p.Flags(c.Flags)
		}
		p.Heading("EXAMPLES")
		p.Code(strings.Split(c.UsageText, "\n")...)
	} else {
		p.Heading("COMMANDS")
		subPages(p, "atelier "+c.Name, c)
	}
	p.ExitStatus(exit.Atelier)
	p.Heading("SEE ALSO")
	p.Text("atelier(1), atelier-spec(5), atelier-settings(5), atelier-coordinator(8), atelier-worker(8)")
	return p
}

// subPages writes the commands of a group, also of groups in it.
func subPages(p *man.Page, name string, group *ucli.Command) {
	for _, sub := range group.Subcommands {
		switch {
		case sub.Hidden:
		case len(sub.Subcommands) > 0: // a group in a group
			subPages(p, name+" "+sub.Name, sub)
		default:
			p.Sub(synopsis(name+" "+sub.Name, sub))
			p.Text(capital(sub.Usage) + "." + "\n\n" + sub.Description)
			p.Flags(sub.Flags)
			p.Code(strings.Split(sub.UsageText, "\n")...)
		}
	}
}

// synopsis is how a command is called.
func synopsis(name string, c *ucli.Command) string {
	if len(c.Flags) > 0 {
		name += " [OPTIONS]"
	}
	return strings.TrimSpace(name + " " + c.ArgsUsage)
}

// capital begins a text with a capital letter.
func capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
