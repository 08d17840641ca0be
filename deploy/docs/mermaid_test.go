package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const top = "../.."

// The part of Mermaid's flowcharts that our pages use. A label must not hold
// characters that end a shape or that Mermaid reads as words of its own.
var (
	block    = regexp.MustCompile("(?ms)^```mermaid\n(.*?)^```$")
	node     = `([a-z][a-z0-9]*)(\[\([\w ,:.-]+\)\]|\(\[[\w ,:.-]+\]\)|\[[\w ,:.-]+\])?`
	nodeLine = regexp.MustCompile(`^` + node + `$`)
	edgeLine = regexp.MustCompile(`^` + node + ` (?:-->|<-->|-\.->|---)(?:\|([\w ,:.-]+)\|)? ` + node + `$`)
	group    = regexp.MustCompile(`^subgraph ([a-z][a-z0-9]*)\[([\w ,:.-]+)\]$`)
	reserved = regexp.MustCompile(`\bend\b`)
)

// flowchart checks a diagram and returns its labels.
func flowchart(text string) (labels, faults []string) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if !slices.Contains([]string{"flowchart LR", "flowchart TB"}, lines[0]) {
		faults = append(faults, "begins with "+lines[0])
	}
	shaped, used := map[string]bool{}, map[string]bool{}
	depth := 0
	see := func(id, shape string) {
		used[id] = true
		if shape != "" {
			if shaped[id] {
				faults = append(faults, id+" has two shapes")
			}
			shaped[id] = true
			labels = append(labels, strings.Trim(shape, "[]()"))
		}
	}
	for i, line := range lines[1:] {
		line = strings.TrimSpace(line)
		if m := group.FindStringSubmatch(line); m != nil {
			depth++
			shaped[m[1]] = true
			labels = append(labels, m[2])
		} else if line == "end" {
			depth--
		} else if m := edgeLine.FindStringSubmatch(line); m != nil {
			see(m[1], m[2])
			see(m[4], m[5])
			labels = append(labels, m[3])
		} else if m := nodeLine.FindStringSubmatch(line); m != nil {
			see(m[1], m[2])
		} else if line != "" {
			faults = append(faults, fmt.Sprintf("line %d is not a node, an edge or a group: %s", i+2, line))
		}
		if depth < 0 {
			faults = append(faults, fmt.Sprintf("line %d: end without subgraph", i+2))
		}
	}
	if depth != 0 {
		faults = append(faults, "a subgraph has no end")
	}
	for id := range used {
		if !shaped[id] {
			faults = append(faults, id+" has no shape anywhere")
		}
	}
	for _, label := range labels {
		if reserved.MatchString(label) {
			faults = append(faults, "Mermaid reads the word end in: "+label)
		}
	}
	return labels, faults
}

// Diagrams of the pages parse, and the one of the architecture shows every program.
func TestDiagrams(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, page := range append(pages, filepath.Join(top, "README.md")) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			labels, faults := flowchart(m[1])
			found[page] = labels
			for _, fault := range faults {
				t.Errorf("%s: %s", page, fault)
			}
		}
	}
	shown := strings.Join(found["architecture.md"], "\n")
	for _, want := range []string{"atelier", "atelier-worker", "atelier-trainer", "coordinators", "raft 7601", "Redis", "HTTP 7600", "HTTP 7610", "gossip 7612"} {
		if !strings.Contains(shown, want) {
			t.Errorf("architecture.md: the diagram does not show %q", want)
		}
	}
	for wrong, faults := range map[string]int{
		"graph":                                  1,
		"flowchart LR\na[A] --> b":               1,
		"flowchart LR\na[A] -> a":                1,
		"flowchart LR\nsubgraph x[X]\na[A]":      1,
		"flowchart LR\na[A]\nend":                2,
		"flowchart LR\na[the end] -->|x| b[B]":   1,
		"flowchart LR\na[A (1)] -->|x| b[(B)]":   1,
		"flowchart LR\na[A] -->|x| b[(B)]\na[C]": 1,
	} {
		if _, got := flowchart(wrong); len(got) != faults {
			t.Errorf("%q: %d faults are seen, want %d: %q", wrong, len(got), faults, got)
		}
	}
}
