package sweep

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// unclear refuses what can be read in two ways, or not at all: a number that
// begins with a zero (YAML 1.1 reads 010 as eight, 1.2 as ten) and names and
// words that hold control characters, which would act on the terminal of
// whoever looks at the sweep. Texts below training are the trainer's.
func (r *reader) unclear(n *yaml.Node, key string, depth int) {
	if depth > maxDepth {
		return // what reads the value says so
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			name := n.Content[i].Value
			if strings.ContainsFunc(name, unicode.IsControl) {
				r.fail(n.Content[i], join(key, strings.Trim(strconv.Quote(name), `"`)), "a name with control characters; take them out")
			}
			r.unclear(n.Content[i+1], join(key, name), depth+1)
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			r.unclear(c, key+"["+strconv.Itoa(i)+"]", depth+1)
		}
	case yaml.ScalarNode:
		switch tag := n.ShortTag(); {
		case (tag == "!!int" || tag == "!!float") && leadingZero.MatchString(n.Value):
			r.fail(n, key, "%s begins with a zero, which some read as an octal number: write it without, or in quotes if it is a word", n.Value)
		case tag == "!!str" && key != "name" && key != "training" && !strings.HasPrefix(key, "training.") && strings.ContainsFunc(n.Value, unicode.IsControl):
			r.fail(n, key, "%s has control characters; take them out", shown(n))
		}
	}
}

// leadingZero leaves 0, 0.5 and 0x10 alone.
var leadingZero = regexp.MustCompile(`^[-+]?0[0-9_]`)
