package rooms_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// phrase is a row of the table of phrases in deploy/docs/words.md.
type phrase struct {
	not, except *regexp.Regexp // except may be nil
	write       string
}

var phraseRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|([^|\n]*)\|$`)

// anyOf matches each of a list of phrases as whole words, however they are spaced; NOUN is any word.
func anyOf(list string) *regexp.Regexp {
	var all []string
	for p := range strings.SplitSeq(list, ",") {
		if p = strings.TrimSpace(p); p != "" {
			all = append(all, strings.ReplaceAll(strings.Join(strings.Fields(regexp.QuoteMeta(p)), `\s+`), "NOUN", `[a-z]+`))
		}
	}
	if all == nil {
		return nil
	}
	return regexp.MustCompile(`(?i)\b(?:` + strings.Join(all, "|") + `)\b`)
}

// phrases reads the table.
func phrases(t *testing.T, page string) (all []phrase) {
	t.Helper()
	_, table, found := strings.Cut(page, "## What people read")
	if !found {
		t.Fatal("deploy/docs/words.md has no section \"What people read\"")
	}
	for _, row := range phraseRow.FindAllStringSubmatch(table, -1)[2:] { // less the head
		all = append(all, phrase{anyOf(row[1]), anyOf(row[3]), row[2]})
	}
	if len(all) < 10 {
		t.Fatalf("deploy/docs/words.md: %d rows of phrases read", len(all))
	}
	return all
}

// find returns the first place in a text where a phrase is and no exception.
func (p phrase) find(text string) string {
	var right [][]int
	if p.except != nil {
		right = p.except.FindAllStringIndex(text, -1)
	}
search:
	for _, at := range p.not.FindAllStringIndex(text, -1) {
		for _, r := range right {
			if at[0] < r[1] && r[0] < at[1] {
				continue search
			}
		}
		return text[at[0]:at[1]]
	}
	return ""
}

// inCode is what Markdown shows as it is typed: code and addresses of links.
var inCode = regexp.MustCompile("(?s)```.*?```|`[^`]*`|\\]\\([^)]*\\)|<!--.*?-->")

// Phrases that deploy/docs/words.md replaces do not come back in what people read: texts of the programs, the README,
// the pages.
func TestPhrases(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "deploy", "docs", "words.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := phrases(t, string(page))
	texts := 0
	look := func(where string, line int, text string) {
		texts++
		for _, p := range all {
			if found := p.find(text); found != "" {
				t.Errorf("%s:%d: %q in %.100q: write %s (deploy/docs/words.md)", where, line, found, text, p.write)
			}
		}
	}
	err = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if n := d.Name(); n == "testdata" || n == "build" || n == "bin" || n == "run" || n == "findings" || strings.HasSuffix(n, "test") || n != ".." && strings.HasPrefix(n, ".") && n != "." {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case strings.HasSuffix(rel, ".go"):
			if strings.HasSuffix(rel, "_test.go") || strings.HasSuffix(rel, ".pb.go") || strings.HasSuffix(rel, ".connect.go") {
				return nil
			}
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				// A count and its noun become a text, though the noun is one word.
				if call, ok := n.(*ast.CallExpr); ok && isPlural(call.Fun) {
					for _, a := range call.Args {
						if lit, ok := a.(*ast.BasicLit); ok && lit.Kind == token.STRING {
							look(rel, files.Position(lit.Pos()).Line, strings.Trim(lit.Value, "`\""))
						}
					}
				}
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					// One word is a key or a name, not a sentence.
					if text, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(strings.TrimSpace(text), " ") {
						look(rel, files.Position(lit.Pos()).Line, text)
					}
				}
				return true
			})
		case rel == "README.md", strings.HasPrefix(rel, "deploy/docs/") && strings.HasSuffix(rel, ".md") && rel != "deploy/docs/words.md", strings.HasSuffix(rel, ".html"):
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			prose := inCode.ReplaceAllStringFunc(string(text), func(code string) string { return "`" + strings.Repeat("\n", strings.Count(code, "\n")) + "`" })
			for i, line := range strings.Split(prose, "\n") {
				look(rel, i+1, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if texts < 5000 {
		t.Errorf("%d texts looked at: the test looks at the wrong files", texts)
	}
}

// isPlural reports whether a function is one that puts a number before a noun.
func isPlural(f ast.Expr) bool {
	switch f := f.(type) {
	case *ast.Ident:
		return f.Name == "plural"
	case *ast.SelectorExpr:
		return strings.EqualFold(f.Sel.Name, "plural")
	}
	return false
}

// The table's forms: whole words, any spacing, exceptions.
func TestPhraseForms(t *testing.T) {
	p := phrase{not: anyOf("is no NOUN, anew"), except: anyOf("there is no, is no longer")}
	for text, want := range map[string]string{
		"x is no number":                         "is no number",
		"begin anew":                             "anew",
		"x is\nno  number":                       "is\nno  number",
		"there is no number":                     "",
		"it is no longer there":                  "",
		"There is no folder; this is no folder.": "is no folder",
		"a renewed lease":                        "",
	} {
		if got := p.find(text); got != want {
			t.Errorf("%q: found %q, want %q", text, got, want)
		}
	}
}
