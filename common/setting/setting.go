// Package setting is the one way to declare what a command or a document may be
// told: a table, one row a key, from which come reading (YAML, JSON, variables,
// flags, KEY=VALUE), checks, defaults, layers and where a value was said,
// did-you-mean, the configuration file and the reference page.
//
// It refuses keys that are not in the table, naming the one that was meant,
// values that their row does not take, and YAML that is more than plain
// settings. It knows no key by itself.
package setting

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"atelier/common/nearest"
	"atelier/common/secret"
)

// Setting is one row: everything there is to know about a key.
type Setting struct {
	Name    string // dotted inside objects: augmentation.cutmix.alpha
	Type    Type
	Default any  // a plain value; nil = unset unless given
	Null    bool // may be set to null although it has a default
	Help    string
	Block   string   // the default, as YAML, of what is no value but keys of its own; read as a whole
	Aliases []string // names that people use for it, too far off for spelling
	// Elsewhere: another command's file and page say what it is.
	Elsewhere bool
	// Short: a plain value in place of the object that the row is in is this row's
	// value (members: 4 is members.min: 4 and members.max: 4, where both are short).
	// A flag of a short row gives such a value.
	Short   bool
	Section string // of the configuration file and the page; "" = that of the row before

	// For the reference: what counts where there is neither a value nor a Default,
	// in words; a value as YAML; what a key belongs to ("search_method bayesian").
	Else    string
	Example string
	Of      string
	Needed  bool // there is nothing without it

	Flag     string // of the command line, "" = --set alone
	Usage    string // of the flag, its value in backquotes
	Off      string // flag that sets it to false
	No       string // usage of Off
	Variable string // of another program: taken where nothing else is said

	// Hide takes a secret out of a text value: what remains is the value, which is shown
	// and stored; Config.Secret gives the rest. nil = there is none in it.
	Hide func(text string) (shown string, hidden secret.Text)
}

// Table is the settings of a command or a document, in order.
type Table []Setting

// Names lists the keys.
func (t Table) Names() []string {
	names := make([]string, len(t))
	for i := range t {
		names[i] = t[i].Name
	}
	return names
}

// Find returns the row of a key, nil where there is none.
func (t Table) Find(name string) *Setting {
	if i := slices.IndexFunc(t, func(s Setting) bool { return s.Name == name }); i >= 0 {
		return &t[i]
	}
	return nil
}

// Has reports whether there is such a key.
func (t Table) Has(name string) bool { return t.Find(name) != nil }

// Only is the part of the table whose rows are wanted.
func (t Table) Only(want func(s Setting) bool) Table {
	var out Table
	for _, s := range t {
		if want(s) {
			out = append(out, s)
		}
	}
	return out
}

// With is the table with more rows behind; one that names the section of rows
// before stands behind those.
func (t Table) With(more ...Setting) Table {
	return append(slices.Clip(slices.Clone(t)), more...)
}

// Set changes rows of a copy of the table.
func (t Table) Set(change func(s *Setting)) Table {
	out := slices.Clone(t)
	for i := range out {
		change(&out[i])
	}
	return out
}

// Check tells what is wrong with a plain value of a key.
func (t Table) Check(name string, v any) error {
	s := t.Find(name)
	if s == nil {
		return fmt.Errorf("unknown key%s", t.meant(name))
	}
	return s.Type.Check(v)
}

// Near is the key that an unknown one most likely stands for: by another name
// of it, by its last parts alone, or by spelling.
func (t Table) Near(unknown string) string {
	if s := t.Alias(unknown); s != nil {
		return s.Name
	}
	words := t.Names()
	full := map[string]string{}
	for _, s := range t {
		for _, alias := range s.Aliases {
			full[alias] = s.Name
			words = append(words, alias)
		}
	}
	for _, name := range t.Names() {
		for tail := name; ; {
			_, after, dotted := strings.Cut(tail, ".")
			if !dotted {
				break
			}
			if tail = after; full[tail] == "" && !t.Has(tail) {
				full[tail] = name
				words = append(words, tail)
			}
		}
	}
	word := nearest.Word(unknown, words)
	if name := full[word]; name != "" {
		return name
	}
	return word
}

// Alias returns the row that people also know by a name, nil where there is none.
func (t Table) Alias(name string) *Setting {
	lower := strings.ToLower(name)
	if i := slices.IndexFunc(t, func(s Setting) bool { return slices.Contains(s.Aliases, lower) }); i >= 0 {
		return &t[i]
	}
	return nil
}

// meant is the end of a message about an unknown key.
func (t Table) meant(unknown string) string {
	if near := t.Near(unknown); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

// Below are the rows below a name, in order.
func (t Table) Below(name string) Table {
	return t.Only(func(s Setting) bool { return strings.HasPrefix(s.Name, name+".") })
}

// Group reports whether keys lie below a name.
func (t Table) Group(name string) bool {
	return slices.ContainsFunc(t, func(s Setting) bool { return strings.HasPrefix(s.Name, name+".") })
}

// Short are the rows right below a name that a plain value in its place is for.
func (t Table) Short(name string) Table {
	return t.Only(func(s Setting) bool { return s.Short && s.Object() == name })
}

// Object is the name of the object that a row is in; "" is the document itself.
func (s Setting) Object() string { return s.Name[:max(0, strings.LastIndexByte(s.Name, '.'))] }

// Said is the key that a flag gives a value to.
func (s Setting) Said() string {
	if s.Short {
		return s.Object()
	}
	return s.Name
}

// Fault is one thing wrong with what was said.
type Fault struct {
	Where   string // file and line, flag, variable, or document
	Key     string
	Message string
	Origin  Origin
}

// Error names the place and the key, each once: a flag that is the key, or a variable, says it
// already.
func (f Fault) Error() string {
	key := f.Key
	if said := strings.ReplaceAll(strings.TrimPrefix(f.Where, "--"), "-", "_"); f.Origin == Environment || f.Origin == Flag && (said == key || f.Where == "--set "+key) {
		key = "" // the flag or the variable says it
	}
	var parts []string
	for _, p := range []string{f.Where, key, f.Message} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}

// Faults is all that is wrong, each with its place.
type Faults []Fault

// Error is a line a fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, x := range f {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// OrNil is the faults as an error, nil where there are none.
func (f Faults) OrNil() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

// Nowhere is the Faults that an error is without their place, for whoever made
// the document that they were found in; another error stays as it is.
func Nowhere(err error) error {
	var f Faults
	if !errors.As(err, &f) {
		return err
	}
	f = slices.Clone(f)
	for i := range f {
		f[i].Where = ""
	}
	return f
}
