package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`!?\[[^\]]*\]\(([^)\s]+)\)`)
	heads   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\w\- ]`)
)

// anchors are the targets that a page's headings make, as GitHub does.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heads.FindAllStringSubmatch(page, -1) {
		all[strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
	}
	return all
}

// Links of the pages lead to files and headings that are there.
func TestLinks(t *testing.T) {
	checked := 0
	names, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, filepath.Join(top, "README.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			checked++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.Join(filepath.Dir(name), file)
			if file == "" {
				target = name
			}
			to, err := os.ReadFile(target)
			if info, e := os.Stat(target); e == nil && info.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			} else if anchor != "" && !anchors(string(to))[anchor] {
				t.Errorf("%s: link to %s: there is no such heading", name, m[1])
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d links were found", checked)
	}
	if a := anchors("# A b\n## What's `x`: 1, 2\n"); !a["a-b"] || !a["whats-x-1-2"] {
		t.Errorf("%v", a)
	}
}
