package cli

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/nearest"

	ucli "github.com/urfave/cli/v2"
)

// noCommand is a command line that ends before a command: its help is shown in
// place of a message, on standard error, for nothing was done.
type noCommand struct{ path []string }

func (n *noCommand) Error() string {
	name := strings.Join(append([]string{"atelier"}, n.path...), " ")
	return fmt.Sprintf("%s: give a command; see %s --help", name, name)
}

// synonyms are words of other programs for commands of this one.
var synonyms = map[string][]string{
	"create": {"submit"}, "new": {"submit"}, "start": {"submit", "train"}, "apply": {"submit"}, "run": {"train", "submit"},
	"rm": {"delete", "cancel", "remove"}, "remove": {"delete", "cancel", "remove"}, "kill": {"cancel", "stop"}, "destroy": {"delete", "cancel"},
	"log": {"logs"}, "tail": {"logs"}, "health": {"status"}, "ps": {"status", "list"}, "top": {"status"},
	"watch": {"wait"}, "follow": {"wait"}, "get": {"show", "list"}, "describe": {"show"}, "info": {"show"}, "inspect": {"show"},
	"ls": {"list"}, "dir": {"list"}, "status": {"show", "list"}, "nodes": {"members"}, "search": {"tune"}, "fit": {"train"},
	"predict": {"infer"}, "evaluate": {"infer"}, "test": {"infer"}, "web": {"serve"}, "ui": {"serve"}, "download": {"pull"}, "fetch": {"pull"},
	"best": {"leaderboard"}, "results": {"leaderboard", "report"}, "doc": {"explain"}, "man": {"explain"},
}

// unknownCommand names the commands that were probably meant: those of the level
// that another word stands for or that are spelt alike, else those of the same
// name, or of another word for it, elsewhere.
func unknownCommand(where, word string, path []string, level []*ucli.Command, app *ucli.App) error {
	text := fmt.Sprintf("%s: unknown command %q", where, word)
	var known []string
	for _, c := range level {
		if !c.Hidden {
			known = append(known, c.Name)
		}
	}
	var meant []string
	add := func(names ...string) {
		if name := strings.Join(append([]string{app.Name}, names...), " "); !slices.Contains(meant, name) {
			meant = append(meant, name)
		}
	}
	lower := strings.ToLower(word)
	for _, other := range synonyms[lower] {
		if slices.Contains(known, other) {
			add(append(slices.Clone(path), other)...)
		}
	}
	// The very word, in a group, is more than a similar one.
	elsewhere := len(path) == 0 && slices.ContainsFunc(app.Commands, func(c *ucli.Command) bool {
		return slices.ContainsFunc(c.Subcommands, func(sub *ucli.Command) bool { return sub.Name == lower && !sub.Hidden })
	})
	if near, ok := nearest.Close(word, known); ok && len(meant) == 0 && !elsewhere {
		add(append(slices.Clone(path), near)...)
	}
	if len(meant) == 0 {
		// The command may be of another group: atelier logs, atelier sweep logs.
		for _, name := range append(slices.Clone(synonyms[lower]), lower) {
			for _, c := range app.Commands {
				if c.Name == name && len(path) > 0 {
					add(c.Name)
				}
				for _, sub := range c.Subcommands {
					if sub.Name == name && !sub.Hidden {
						add(c.Name, sub.Name)
					}
				}
			}
		}
	}
	switch n := min(len(meant), 3); {
	case n == 0:
		return usage("%s; see %s --help", text, where)
	case len(path) == 0 && n == 1 && strings.Count(meant[0], " ") == 1, len(path) > 0 && n == 1 && strings.HasPrefix(meant[0], where+" "):
		return usage("%s; did you mean %q?", text, strings.TrimPrefix(meant[0], where+" "))
	default:
		return usage("%s; did you mean %s?", text, strings.Join(meant[:n], " or "))
	}
}
