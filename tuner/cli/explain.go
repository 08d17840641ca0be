package cli

import (
	"fmt"
	"slices"
	"strings"

	"atelier/common/exit"
	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/settings"
	"atelier/tuner/sweep"

	"atelier/common/terminal"

	ucli "github.com/urfave/cli/v2"
)

// references are the documents whose keys explain, the reference pages, the manual
// pages and the completion show, each from its one table.
var references = append([]setting.Document{sweep.Document}, documents...)

// exitTopic is what explain calls the exit codes.
const exitTopic = "exit-codes"

// explained is a key as -o json prints it; the keys of the record are never renamed.
type explained struct {
	Key      string     `json:"key"` // with its document: sweep.space.NAME.low
	Help     string     `json:"help"`
	Takes    string     `json:"takes"`
	Choices  []string   `json:"choices"` // where it takes one of a few words
	Default  string     `json:"default"` // as YAML, or in words where it follows from something else
	Needed   bool       `json:"needed"`
	Of       string     `json:"of"` // what it belongs to, such as search_method bayesian
	Example  string     `json:"example"`
	Flag     string     `json:"flag"`
	Variable string     `json:"variable"`
	Note     string     `json:"note"` // what is known of a name of the person's own
	Keys     []shortKey `json:"keys"` // below it
}

// shortKey is a key in the list of what holds it.
type shortKey struct {
	Key     string `json:"key"`
	Takes   string `json:"takes"`
	Default string `json:"default"`
	Help    string `json:"help"`
}

func (e *Env) explainCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "explain", Usage: "explain a key of a spec or of a configuration", ArgsUsage: "[KEY]",
		Description: "KEY begins with its document: sweep for the spec of a sweep, train, tune or infer for\n" +
			"settings. Without that, every document that has the key is shown; without KEY, the\n" +
			"documents. exit-codes are the exit codes of the programs.",
		Flags: []ucli.Flag{outputFlag()}, Action: e.explain}, 0, 1,
		"atelier explain sweep", "atelier explain sweep.space.lr.low", "atelier explain train.lr",
		"atelier explain tune.search_method -o json", "atelier explain exit-codes")
}

// explain prints what a key is, what it takes and what it is worth without a value.
func (e *Env) explain(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	path := c.Args().First()
	switch path {
	case "":
		return e.explainDocuments(c)
	case exitTopic, "exit", "exit-code":
		return e.explainExits(c)
	}
	var found []explained
	for _, d := range references {
		if x, ok := lookUp(d, path); ok {
			found = append(found, x)
		}
	}
	if len(found) == 0 {
		return notFound("explain: no key %q; did you mean %s? (atelier explain alone lists the documents)", path, nearestKey(path))
	}
	if c.String("output") != "table" {
		return e.print(c, found, nil)
	}
	for i, x := range found {
		if i > 0 {
			fmt.Fprintln(e.Out)
		}
		if err := x.print(e); err != nil {
			return err
		}
	}
	return nil
}

// lookUp explains a path in a document, whose name may stand in front.
func lookUp(d setting.Document, path string) (explained, bool) {
	key, named := strings.CutPrefix(path, d.Command+".")
	if path == d.Command {
		return holder(d, "", d.About()), true
	}
	if !named {
		if first, _, _ := strings.Cut(path, "."); slices.ContainsFunc(references, func(o setting.Document) bool { return o.Command == first }) {
			return explained{}, false
		}
		key = path
	}
	if row := d.Table.Lookup(key); row != nil {
		x := describe(d, row)
		x.Note = searchedSetting(key)
		return x, true
	}
	if d.Table.Group(key) {
		return holder(d, key, ""), true
	}
	// What is a part of the file as a whole has its keys in the spec's table.
	if block, _, ok := strings.Cut(key, "."); ok && d.Command != sweep.Document.Command {
		if row := d.Table.Find(block); row != nil && row.Block != "" {
			if inner := sweep.Document.Table.Lookup(key); inner != nil {
				x := describe(sweep.Document, inner)
				x.Note = searchedSetting(key)
				x.Key = strings.Replace(x.Key, sweep.Document.Command+".", d.Command+".", 1)
				return x, true
			}
		}
	}
	return explained{}, false
}

// searchedSetting is what the trainer torch takes of the parameter that a key below
// space names; "" where there is none, or the name is no setting.
func searchedSetting(key string) string {
	name, below := strings.CutPrefix(key, "space.")
	for ; below && name != ""; name = name[:max(0, strings.LastIndexByte(name, '.'))] {
		if s := settings.Table.Find(name); s != nil {
			return fmt.Sprintf("the training setting %s (%s) takes %s", s.Name, strings.ReplaceAll(s.Help, "\n", " "), s.Type.Want)
		}
	}
	return ""
}

// describe is a row.
func describe(d setting.Document, row *setting.Setting) explained {
	x := holder(d, row.Name, strings.ReplaceAll(row.Help, "\n", " "))
	x.Takes, x.Default, x.Needed, x.Of = row.Takes(), row.Absent(), row.Needed, row.Of
	x.Choices = append(x.Choices, row.Type.Choices...)
	if sample := row.Sample(); sample != "" {
		x.Example = row.Name[strings.LastIndexByte(row.Name, '.')+1:] + ": " + strings.TrimSpace(sample)
		if strings.Contains(sample, "\n") {
			x.Example = ""
		}
	}
	if row.Flag != "" {
		x.Flag = "--" + row.Flag
	} else if row.Off != "" {
		x.Flag = "--" + row.Off
	}
	if d.Prefix != "" && row.Block == "" {
		x.Variable = d.Prefix + strings.ToUpper(strings.ReplaceAll(row.Name, ".", "_"))
	}
	return x
}

// holder is a key with those below it.
func holder(d setting.Document, name, help string) explained {
	x := explained{Key: strings.TrimSuffix(d.Command+"."+name, "."), Help: help, Choices: []string{}, Keys: []shortKey{}}
	for _, s := range d.Table {
		if name == "" || strings.HasPrefix(s.Name, name+".") || strings.HasPrefix(s.Name, name+"[]") {
			x.Keys = append(x.Keys, shortKey{d.Command + "." + s.Name, s.Takes(), s.Absent(), strings.ReplaceAll(s.Help, "\n", " ")})
		}
	}
	return x
}

// nearestKey is the key that an unknown one most likely stands for, with its
// document.
func nearestKey(path string) string {
	first, rest, dotted := strings.Cut(path, ".")
	var names, near []string
	for _, d := range references {
		names = append(names, d.Command)
		if d.Command == first && dotted {
			return d.Command + "." + d.Table.Nearest(rest)
		}
		near = append(near, d.Command+"."+d.Table.Nearest(path))
	}
	if name, ok := nearest.Close(first, append(names, exitTopic)); ok && dotted {
		return name + "." + rest
	} else if ok {
		return name
	}
	best := ""
	for _, n := range near {
		_, key, _ := strings.Cut(n, ".")
		if _, other, _ := strings.Cut(best, "."); best == "" || nearest.Distance(path, key) < nearest.Distance(path, other) {
			best = n
		}
	}
	return best
}

// print shows a key to a person.
func (x *explained) print(e *Env) error {
	var b strings.Builder
	b.WriteString(x.Key + "\n")
	for _, line := range terminal.Fold(x.Help, 78) {
		b.WriteString("  " + line + "\n")
	}
	rows := [][2]string{{"takes", x.Takes}, {"without it", x.Default}, {"belongs to", x.Of}, {"example", x.Example}, {"flag", x.Flag}, {"variable", x.Variable}, {"note", x.Note}}
	first := true
	for _, r := range rows {
		if r[1] == "" {
			continue
		}
		if first {
			b.WriteString("\n")
			first = false
		}
		for i, line := range terminal.Fold(r[1], 66) {
			label := r[0]
			if i > 0 {
				label = ""
			}
			fmt.Fprintf(&b, "  %-11s %s\n", label, line)
		}
	}
	if len(x.Keys) > 0 {
		b.WriteString("\n")
		width := 0
		for _, k := range x.Keys {
			width = max(width, len(k.Key))
		}
		for _, k := range x.Keys {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, k.Key, k.Takes)
		}
	}
	_, err := e.Out.Write([]byte(b.String()))
	return err
}

// explainDocuments lists what can be explained.
func (e *Env) explainDocuments(c *ucli.Context) error {
	type record struct {
		Document string `json:"document"`
		File     string `json:"file"`
		Keys     int    `json:"keys"`
		What     string `json:"what"`
	}
	var all []record
	for _, d := range references {
		all = append(all, record{d.Command, d.File, len(d.Table), d.About()})
	}
	all = append(all, record{exitTopic, "", 0, "exit codes of the programs"})
	return e.print(c, all, func() table {
		t := table{head: []string{"DOCUMENT", "FILE", "KEYS", "WHAT IT IS"}, prose: "WHAT IT IS"}
		for _, r := range all {
			t.rows = append(t.rows, []string{r.Document, dash(r.File), count(int64(r.Keys)), r.What})
		}
		t.rows[len(t.rows)-1][2] = "-"
		return t
	})
}

// explainExits prints the tables of exit codes.
func (e *Env) explainExits(c *ucli.Context) error {
	type record struct {
		Program string `json:"program"`
		exit.Code
	}
	var all []record
	for _, p := range exit.Programs {
		for _, code := range p.Codes {
			all = append(all, record{p.Name, code})
		}
	}
	return e.print(c, all, func() table {
		t := table{head: []string{"PROGRAM", "CODE", "MEANING"}, prose: "MEANING"}
		for _, r := range all {
			t.rows = append(t.rows, []string{r.Program, count(int64(r.Code.Code)), r.Meaning})
		}
		return t
	})
}
