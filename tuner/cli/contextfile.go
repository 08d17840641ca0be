package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"atelier/common/client"
	"atelier/common/nearest"
	"atelier/common/secret"

	ucli "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
)

// contexts are the clusters that a person has given names, and the one in use. The
// file is the person's own: what a later version adds to it stays.
type contexts struct {
	Current  string                  `yaml:"current,omitempty"`
	Contexts map[string]contextEntry `yaml:"contexts,omitempty"`
	Rest     map[string]any          `yaml:",inline"`

	text []byte // that was read
}

// contextEntry is one cluster.
type contextEntry struct {
	Addr  string         `yaml:"addr"`            // HOST:PORT[,..] of its coordinators
	CA    string         `yaml:"ca,omitempty"`    // PEM: authorities of a closed cluster
	Token string         `yaml:"token,omitempty"` // a secret
	Rest  map[string]any `yaml:",inline"`
}

// largestContexts bounds what is read: a file beyond it is something else.
const largestContexts = 1 << 20

// contextName is what a context may be called: a word that no shell takes apart.
var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// yamlLine is where the parser's message names a line.
var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s+)?line (\d+): `)

// decodeContexts reads the file's text; file is its name in errors. An empty one
// has no contexts.
func decodeContexts(file string, text []byte) (*contexts, error) {
	c := &contexts{text: text}
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(c); err != nil && len(bytes.TrimSpace(text)) > 0 && err.Error() != "EOF" {
		said := err.Error()
		if m := yamlLine.FindStringSubmatch(said); m != nil {
			return nil, fmt.Errorf("%s:%s: %s", file, m[1], said[len(m[0]):])
		}
		return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(said, "yaml: "))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Contexts)) {
		if !contextName.MatchString(name) {
			return nil, fmt.Errorf("%s: contexts: %q is not a name: want letters, digits, . _ and -", file, name)
		}
		if _, err := client.ParseAddrs(c.Contexts[name].Addr); err != nil {
			return nil, fmt.Errorf("%s: contexts.%s.addr: %w", file, name, err)
		}
	}
	if _, ok := c.Contexts[c.Current]; c.Current != "" && !ok {
		return nil, fmt.Errorf("%s: current: there is no context %q%s", file, c.Current, c.nearest(c.Current))
	}
	return c, nil
}

// names are those of all contexts, sorted.
func (c *contexts) names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// nearest names what was probably meant, for the end of an error.
func (c *contexts) nearest(name string) string {
	if near, ok := nearest.Close(name, c.names()); ok {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	if len(c.Contexts) == 0 {
		return "; there are none"
	}
	return "; there are " + strings.Join(c.names(), ", ")
}

// contextsKey is where completion finds the contexts in the tree of commands.
const contextsKey = "contexts"

// contextsOf are the contexts that a tree of commands knows; none where they cannot
// be read.
func contextsOf(app *ucli.App) *contexts {
	if read, ok := app.Metadata[contextsKey].(func() (*contexts, error)); ok {
		if all, err := read(); err == nil {
			return all
		}
	}
	return &contexts{}
}

// words completes a name; before is what the word has already.
func (c *contexts) words(last, before string) (out []candidate) {
	for _, n := range c.names() {
		if strings.HasPrefix(n, last) {
			out = append(out, candidate{before + n, c.Contexts[n].Addr})
		}
	}
	return out
}

// contextsFile is where they are kept; "" where nobody has a home.
func (e *Env) contextsFile() string {
	if dir := e.environ("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "atelier", "config.yaml")
	}
	if home := e.home(); home != "" {
		return filepath.Join(home, ".config", "atelier", "config.yaml")
	}
	return ""
}

// readContexts reads the file; without one there are none.
func (e *Env) readContexts() (*contexts, error) {
	file := e.contextsFile()
	if file == "" {
		return &contexts{}, nil
	}
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &contexts{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > largestContexts {
		return nil, fmt.Errorf("contexts: %s is not a file of at most 1 MiB", file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	all, err := decodeContexts(file, text)
	if err == nil && info.Mode().Perm()&0o077 != 0 && slices.ContainsFunc(slices.Collect(maps.Values(all.Contexts)), func(c contextEntry) bool { return c.Token != "" }) {
		return nil, fmt.Errorf("contexts: %w", &secret.OpenError{File: file, Mode: info.Mode().Perm()})
	}
	return all, err
}
