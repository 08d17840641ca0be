package cli

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/client"
	"atelier/common/identity"
	"atelier/tuner/hint"

	ucli "github.com/urfave/cli/v2"
)

// contextCommands give clusters names. Which cluster a command speaks to, first one
// that is given: --addr or --context, ATELIER_ADDR, ATELIER_CONTEXT, the context in
// use, this machine.
func (e *Env) contextCommands() *ucli.Command {
	return group("context", "name clusters, and choose the one to speak to",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list the contexts",
			Flags: []ucli.Flag{contextOutput(), &ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print names only"}}, Action: e.listContexts}, 0, 0,
			"atelier context list"),
		verb(&ucli.Command{Name: "show", Usage: "show a context, or the cluster that commands speak to", ArgsUsage: "[NAME]",
			Flags: []ucli.Flag{outputFlag()}, Action: e.showContext}, 0, 1,
			"atelier context show", "atelier context show lab -o json"),
		verb(&ucli.Command{Name: "use", Usage: "speak to this cluster from now on", ArgsUsage: "NAME",
			Description: "For one command: --context NAME; for one shell: ATELIER_CONTEXT. --addr and ATELIER_ADDR go before\n" +
				"the context in use. While one is in use, train, tune and infer work in that cluster; --local works here.",
			Flags: []ucli.Flag{&ucli.BoolFlag{Name: "none", Usage: "use no context"}}, Action: e.useContext}, 0, 1,
			"atelier context use lab", "atelier context use --none"),
		verb(&ucli.Command{Name: "set", Usage: "name a cluster, or change its addresses", ArgsUsage: "NAME",
			Flags: []ucli.Flag{&ucli.StringFlag{Name: "addr", Usage: "`HOST:PORT[,..]` of its coordinators"},
				&ucli.BoolFlag{Name: "use", Usage: "and use it from now on"}}, Action: e.setContext}, 1, 1,
			"atelier context set lab --addr a:7600,b:7600,c:7600", "atelier context set home --addr 127.0.0.1:7600 --use"),
		verb(&ucli.Command{Name: "remove", Aliases: []string{"rm"}, Usage: "forget a context; the cluster is not touched", ArgsUsage: "NAME", Action: e.removeContext}, 1, 1,
			"atelier context remove lab"),
	)
}

// chosen is the cluster that a command line speaks to, as far as it has a name.
type chosen struct {
	global  []string // flags of the whole program on the command line
	context string   // whose address is taken; "" = none's
	fault   error    // why no context could be read
}

// contextOutput is -o of the list, which also has names.
func contextOutput() ucli.Flag {
	return &ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT`: table, wide, name, json, yaml or csv"}
}

// contextRecord is a context as it is listed.
type contextRecord struct {
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Current bool   `json:"current"`
}

// chosenRecord is the cluster that commands speak to.
type chosenRecord struct {
	Context string `json:"context"` // empty: none
	Addr    string `json:"addr"`
	Closed  bool   `json:"closed"`      // it is known as a closed cluster: commands log in
	Print   string `json:"fingerprint"` // of the authority of a closed cluster
	From    string `json:"from"`        // where the address comes from
	File    string `json:"file"`        // that contexts are kept in
}

// listContexts marks the one in use.
func (e *Env) listContexts(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	all, err := e.readContexts()
	if err != nil {
		return err
	}
	records := []contextRecord{}
	for _, name := range all.names() {
		if c.Bool("quiet") || c.String("output") == "name" {
			fmt.Fprintln(e.Out, name)
		}
		records = append(records, contextRecord{name, all.Contexts[name].Addr, name == all.Current})
	}
	switch {
	case c.Bool("quiet") || c.String("output") == "name":
		return nil
	case len(records) == 0 && tabular(c):
		e.say("there are no contexts; name a cluster: atelier context set NAME --addr HOST:PORT")
		return nil
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"", "NAME", "ADDR"}, flex: []string{"ADDR"}}
		for _, r := range records {
			t.rows = append(t.rows, []string{map[bool]string{true: "*"}[r.Current], r.Name, r.Addr})
		}
		return t
	})
}

// showContext shows one by name, or what all other commands would take.
func (e *Env) showContext(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	r := chosenRecord{Context: e.chosen.context, Addr: c.String("addr"), From: e.addressFrom(c), File: e.contextsFile()}
	if name := c.Args().First(); name != "" {
		all, entry, err := e.findContext(name)
		if err != nil {
			return err
		}
		r.Context, r.Addr, r.From = name, entry.Addr, "context "+name
		if name == all.Current {
			r.From += ", in use"
		}
	} else if e.chosen.fault != nil && !c.IsSet("addr") {
		return e.chosen.fault
	}
	if list, err := client.ParseAddrs(r.Addr); err == nil {
		l, err := e.loginOf(list)
		if err != nil {
			return err
		}
		if trusted, err := identity.ParseTrusted([]byte(l.CA)); err == nil {
			r.Closed, r.Print = true, trusted.Fingerprint()
		}
	}
	return e.print(c, r, func() table {
		t := table{head: []string{"", ""}, rows: [][]string{{"context", dash(r.Context)}, {"addr", r.Addr}, {"from", r.From}, {"file", dash(r.File)}}}
		if r.Closed {
			t.rows = append(t.rows, []string{"authority", r.Print})
		}
		return t
	})
}

// findContext reads the file for one of them.
func (e *Env) findContext(name string) (*contexts, contextEntry, error) {
	all, err := e.readContexts()
	if err != nil {
		return nil, contextEntry{}, err
	}
	entry, err := all.find(name)
	return all, entry, err
}

// find is one of the contexts.
func (c *contexts) find(name string) (contextEntry, error) {
	entry, ok := c.Contexts[name]
	if !ok {
		return entry, notFound("there is no context %q%s", name, c.nearest(name))
	}
	return entry, nil
}

// useContext chooses one for all commands to come, or none.
func (e *Env) useContext(c *ucli.Context) error {
	name := c.Args().First()
	if (name == "") != c.Bool("none") {
		return usage("context use: name a context, or --none")
	}
	var entry contextEntry
	err := e.changeContexts(c.Context, func(all *contexts) (err error) {
		if name != "" {
			entry, err = all.find(name)
		}
		all.Current = name
		return err
	})
	if err != nil {
		return err
	}
	if name == "" {
		e.say("no context is in use")
	} else {
		e.say("context %s is in use: %s", name, entry.Addr)
	}
	return e.sayStronger()
}

// sayStronger warns where the environment goes before the context in use.
func (e *Env) sayStronger() error {
	for _, name := range []string{"ATELIER_ADDR", "ATELIER_CONTEXT"} {
		if v := e.environ(name); v != "" {
			e.say("warning: %s is set to %s in this shell and goes before it", name, v)
			break
		}
	}
	return nil
}

// setContext makes a context or changes its addresses; what else is kept of it stays.
func (e *Env) setContext(c *ucli.Context) error {
	name, addr := c.Args().First(), c.String("addr")
	if !contextName.MatchString(name) {
		return usage("context set: %q is not a name: want letters, digits, . _ and -", name)
	}
	if addr == "" {
		return usage("context set: where is the cluster? --addr HOST:PORT[,HOST:PORT]")
	}
	if _, err := client.ParseAddrs(addr); err != nil {
		return usage("context set: --addr: %s", err)
	}
	what, used := "added", false
	if err := e.changeContexts(c.Context, func(all *contexts) error {
		entry, known := all.Contexts[name]
		entry.Addr = addr
		if all.Contexts == nil {
			all.Contexts = map[string]contextEntry{}
		}
		all.Contexts[name] = entry
		if c.Bool("use") {
			all.Current = name
		}
		if known {
			what = "changed"
		}
		used = all.Current == name
		return nil
	}); err != nil {
		return err
	}
	switch {
	case used:
		e.say("context %s %s, and in use: %s", name, what, addr)
		return e.sayStronger()
	default:
		e.say("context %s %s: %s; use it: atelier context use %[1]s", name, what, addr)
	}
	return nil
}

// removeContext forgets a context.
func (e *Env) removeContext(c *ucli.Context) error {
	name := c.Args().First()
	text := "context " + name + " removed"
	if err := e.changeContexts(c.Context, func(all *contexts) error {
		if _, err := all.find(name); err != nil {
			return err
		}
		delete(all.Contexts, name)
		if all.Current == name {
			all.Current = ""
			text += "; no context is in use now"
		}
		return nil
	}); err != nil {
		return err
	}
	e.say("%s", text)
	return nil
}

// chooseCluster takes the address of a context where the command line and the
// environment give none, before any command looks at --addr. A faulty file stops
// only commands that would take an address from it.
func (e *Env) chooseCluster(c *ucli.Context) error {
	named := e.given("context")
	switch {
	case named && e.given("addr"):
		return usage("--addr and --context exclude one another")
	case named:
	case c.IsSet("addr"):
		return nil
	}
	all, err := e.readContexts()
	name := c.String("context")
	if err == nil && name == "" {
		name = all.Current
	}
	switch {
	case err != nil && name != "":
		return usage("%s", err)
	case err != nil:
		e.chosen.fault = usage("%s; mend it, or give --addr", err)
		// These would work on this machine instead, without a word.
		if slices.Contains([]string{"train", "tune", "infer", "serve"}, c.Args().First()) {
			return e.chosen.fault
		}
		return nil
	case name == "":
		return nil
	}
	entry, ok := all.Contexts[name]
	if !ok {
		return usage("%s: there is no context %q%s", map[bool]string{true: "--context", false: "ATELIER_CONTEXT"}[named], name, all.nearest(name))
	}
	e.chosen.context = name
	return c.Set("addr", entry.Addr)
}

// globalWords are the words of an arranged command line before the first command:
// the flags of the whole program.
func globalWords(argv []string) []string {
	at := slices.IndexFunc(argv, func(w string) bool { return !strings.HasPrefix(w, "--") })
	if at < 0 {
		return argv
	}
	return argv[:at]
}

// given reports whether the command line itself has a flag of the whole program.
func (e *Env) given(flag string) bool {
	return slices.ContainsFunc(e.chosen.global, func(word string) bool { return strings.HasPrefix(word, "--"+flag+"=") })
}

// addressFrom is where the address comes from, in a few words.
func (e *Env) addressFrom(c *ucli.Context) string {
	if e.chosen.context != "" {
		return "context " + e.chosen.context
	}
	return map[hint.Origin]string{hint.Default: "default", hint.Flag: "--addr", hint.Environment: "ATELIER_ADDR"}[e.addressOrigin(c)]
}
