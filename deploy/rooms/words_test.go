package rooms_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	wordsRow = regexp.MustCompile(`(?m)^\| ([a-z]+) \| ([^|]+) \| ([a-z/.]+) \|$`)
	oneWord  = regexp.MustCompile(`[A-Z]*[a-z0-9]+|[A-Z]+`)
)

// words returns those of a name in mixed capitals, in lower case.
func words(name string) []string {
	out := oneWord.FindAllString(name, -1)
	for i := range out {
		out[i] = strings.ToLower(out[i])
	}
	return out
}

// Words that deploy/docs/words.md replaces do not come back as names.
func TestWords(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "deploy", "docs", "words.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := wordsRow.FindAllStringSubmatch(string(page), -1)
	if len(rows) < 10 {
		t.Fatalf("deploy/docs/words.md: %d rows read", len(rows))
	}
	for _, row := range rows {
		if _, err := os.Stat(filepath.Join(root, row[3])); err != nil {
			t.Errorf("deploy/docs/words.md: %s: %v", row[1], err)
		}
	}
	names := 0
	for _, top := range []string{"common", "coordinator", "deploy", "tuner", "worker"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".connect.go") {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			rel = filepath.ToSlash(rel)
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				id, ok := n.(*ast.Ident)
				if !ok {
					return true
				}
				names++
				parts := words(id.Name)
				for _, row := range rows {
					if (row[3] == "." || strings.HasPrefix(rel, row[3]+"/")) && slices.Contains(parts, row[1]) {
						t.Errorf("%s:%d: %s: say %s (deploy/docs/words.md)", rel, files.Position(id.Pos()).Line, id.Name, row[2])
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if names < 100_000 {
		t.Errorf("only %d names were read", names)
	}
}
