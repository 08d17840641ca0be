package sweep

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"atelier/common/nearest"
	"go.yaml.in/yaml/v3"
)

const (
	maxDepth = 64      // of nested mappings and lists
	maxNodes = 200_000 // nodes visited, aliases counted each time they are followed
	maxKey   = 120     // bytes of a key path that a message shows
)

// reader walks the YAML tree and collects faults. Aliases are followed one at
// a time against a budget of visits, so that nested anchors cannot blow up.
type reader struct {
	file   string
	errs   Errors
	visits int
	spent  bool
	toRun  bool             // the trainer's part is checked, too
	places map[string]place // of the space's parameters, by name; looked up only
}

// fail records a fault. n is where it stands, nil for the whole file. Keys come from the file and
// are cut, lest a hostile one fills a terminal.
func (r *reader) fail(n *yaml.Node, key, format string, args ...any) {
	if r.spent {
		return // what the walk did not reach is not missing
	}
	line := 0
	if n != nil {
		line = n.Line
	}
	if len(key) > maxKey {
		key = strings.ToValidUTF8(key[:maxKey], "") + "..."
	}
	r.errs = append(r.errs, Error{r.file, line, key, fmt.Sprintf(format, args...)})
}

// follow resolves aliases and charges the visit. It returns nil when the
// budget is spent; the fault is then on record.
func (r *reader) follow(n *yaml.Node, key string) *yaml.Node {
	for hops := 0; n != nil; hops++ {
		r.visits++
		if r.visits > maxNodes || hops > maxDepth {
			r.fail(n, key, "the file unfolds to more than %d values; use fewer anchors and aliases", maxNodes)
			r.spent = true
			return nil
		}
		if n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// entry is a pair of a mapping.
type entry struct {
	key   *yaml.Node
	name  string
	value *yaml.Node // resolved
}

// entries lists a mapping's pairs in order. Repeated keys are faults; merge
// keys (<<) bring in what is not given beside them.
func (r *reader) entries(n *yaml.Node, path string) []entry {
	var out []entry
	// The first of two keys counts, so that what is read fits the message.
	seen := map[string]int{} // name to line; looked up only
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := r.follow(n.Content[i], path)
		value := r.follow(n.Content[i+1], path)
		if key == nil || value == nil {
			return out
		}
		if key.Kind != yaml.ScalarNode {
			r.fail(n.Content[i], path, "a key must be a plain word, not a %s", nodeKind(key))
			continue
		}
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if line, twice := seen[key.Value]; twice {
			r.fail(n.Content[i], join(path, key.Value), "appears twice, first on line %d; keep one", line)
			continue
		}
		seen[key.Value] = n.Content[i].Line
		out = append(out, entry{n.Content[i], key.Value, value})
	}
	// Merges come last: what stands beside << counts, and of several merges the first. They are a
	// queue, not a recursion, and each hop is charged, so that merges which refer to one another
	// end.
	for depth := 0; len(merged) > 0; depth++ {
		m := merged[0]
		merged = merged[1:]
		switch {
		case m.Kind == yaml.SequenceNode && depth <= maxDepth:
			for _, c := range m.Content {
				if c = r.follow(c, path); c != nil {
					merged = append(merged, c)
				}
			}
		case m.Kind == yaml.MappingNode && depth <= maxDepth:
			for i := 0; i+1 < len(m.Content); i += 2 {
				key, value := r.follow(m.Content[i], path), r.follow(m.Content[i+1], path)
				if key == nil || value == nil {
					return out
				}
				if key.ShortTag() == "!!merge" {
					merged = append(merged, value)
				} else if _, given := seen[key.Value]; !given && key.Kind == yaml.ScalarNode {
					seen[key.Value] = key.Line
					out = append(out, entry{m.Content[i], key.Value, value})
				}
			}
		default:
			r.fail(m, path, "<< takes a mapping or a list of mappings")
		}
	}
	return out
}

// entriesOf are the entries whose keys are known; another one is a fault.
func (r *reader) entriesOf(n *yaml.Node, path string, known []string) []entry {
	return slices.DeleteFunc(r.entries(n, path), func(e entry) bool {
		unknown := !slices.Contains(known, e.name)
		if unknown {
			r.unknown(e, path, known)
		}
		return unknown
	})
}

// join is a key path, with dots.
func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// nodeKind is what a person calls a node.
func nodeKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return "empty value"
		case "!!bool":
			return "truth value"
		case "!!int", "!!float":
			return "number"
		}
		return "text"
	}
	return "value"
}

// article puts a or an before it.
func article(what string) string {
	switch {
	case what == "text":
		return what
	case strings.ContainsRune("aeiou", rune(what[0])):
		return "an " + what
	}
	return "a " + what
}

// shown is a node as a message cites it: a scalar quoted and cut, control characters escaped; else what it is.
func shown(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return article(nodeKind(n))
	}
	v := n.Value
	if len(v) > 40 {
		v = strings.ToValidUTF8(v[:40], "") + "..."
	}
	if n.ShortTag() == "!!null" {
		return "nothing"
	}
	return strconv.Quote(v)
}

// mapping reports whether n is a mapping; if not, the fault shows an example of one.
func (r *reader) mapping(n *yaml.Node, key, example string) bool {
	if n.Kind == yaml.MappingNode {
		return true
	}
	r.fail(n, key, "want a mapping such as %s, not %s", example, shown(n))
	return false
}

// text reads a string. A number or a truth value is not taken for one: `trainer: 1e3` was meant
// otherwise, or needs quotes to survive the next program that reads the file.
func (r *reader) text(n *yaml.Node, key string) (string, bool) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return n.Value, true
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
		r.fail(n, key, "want text, not %s; put quotes around it", n.Value)
		return "", false
	}
	r.fail(n, key, "want text, not %s", shown(n))
	return "", false
}

// truth reads true or false; the words yes, no, on and off are texts in YAML 1.2.
func (r *reader) truth(n *yaml.Node, key string) bool {
	var b bool
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(&b) != nil {
		r.fail(n, key, "want true or false, not %s", shown(n))
	}
	return b
}

// number reads a number, whole or not; it may be infinite or no number (.inf, .nan), which the
// caller judges.
func (r *reader) number(n *yaml.Node, key string) (float64, bool) {
	var f float64
	tag := n.ShortTag()
	if n.Kind == yaml.ScalarNode && (tag == "!!int" || tag == "!!float") && n.Decode(&f) == nil {
		return f, true
	}
	hint := ""
	if _, err := strconv.ParseFloat(n.Value, 64); err == nil && n.Kind == yaml.ScalarNode && tag == "!!str" {
		hint = "; drop the quotes"
	}
	r.fail(n, key, "want a number, not %s%s", shown(n), hint)
	return 0, false
}

// whole reads an integer from low to high. 1e3 and 5.0 are none: where a count is meant, a float is
// mostly a mistake.
func (r *reader) whole(n *yaml.Node, key string, low, high int64) (int64, bool) {
	var i int64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&i) != nil {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" {
			r.fail(n, key, "%s is outside %d to %d", n.Value, low, high)
		} else {
			r.fail(n, key, "want a whole number from %d to %d, not %s", low, high, shown(n))
		}
		return 0, false
	}
	if i < low || i > high {
		r.fail(n, key, "%d is outside %d to %d", i, low, high)
		return 0, false
	}
	return i, true
}

// unknown records a key that nothing here knows. Such a key is never passed over: a misspelt one would leave the
// default in its place, and a night of training would show it.
func (r *reader) unknown(e entry, path string, known []string) {
	r.fail(e.key, join(path, e.name), "unknown key; nearest known key: %s (known: %s)", nearest.Word(e.name, known), strings.Join(known, ", "))
}

// oneOf reads a word of a list; another one is a fault that names the nearest.
func (r *reader) oneOf(n *yaml.Node, key string, known []string) (string, bool) {
	word, ok := r.text(n, key)
	if !ok {
		return "", false
	}
	for _, k := range known {
		if k == word {
			return k, true
		}
	}
	r.fail(n, key, "%s is not known; did you mean %s? (known: %s)", shown(n), nearest.Word(word, known), strings.Join(known, ", "))
	return "", false
}
