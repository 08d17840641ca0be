package cli

import ucli "github.com/urfave/cli/v2"

// Arrange orders a command line for the tree of verbs.
func Arrange(args []string) ([]string, error) { return arrange((&Env{}).app(), args) }

// Verbs calls f for each verb with its whole name and the path to it.
func Verbs(f func(path []string, c *ucli.Command)) {
	var walk func(path []string, level []*ucli.Command)
	walk = func(path []string, level []*ucli.Command) {
		for _, c := range level {
			p := append(append([]string{}, path...), c.Name)
			if len(c.Subcommands) == 0 {
				f(p, c)
			}
			walk(p, c.Subcommands)
		}
	}
	walk(nil, (&Env{}).app().Commands)
}
