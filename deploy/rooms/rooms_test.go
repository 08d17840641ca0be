// Package rooms holds the house's import rules: which package may import which.
// It has no code of its own; deploy/docs/architecture.md draws the same map for people.
package rooms_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

type pkg struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
	CgoFiles     []string
}

const module = "atelier"

// may lists, for an import (a path or a tree ending in "/..."), the trees of
// this module that may import it. Everything else may not.
var may = []struct {
	imported string
	by       []string
	why      string
}{
	{"github.com/hashicorp/raft/...", []string{"coordinator/replica/..."}, "only replica sees raft"},
	{"github.com/hashicorp/raft-wal/...", []string{"coordinator/replica/..."}, "only replica sees raft"},
	{"github.com/hashicorp/raft-boltdb/...", []string{"coordinator/replica/..."}, "only replica sees raft"},
	{"github.com/hashicorp/memberlist/...", []string{"common/gossip/..."}, "only gossip sees memberlist"},
	{"github.com/redis/go-redis/...", []string{"coordinator/board/...", "coordinator/duty/project/..."}, "only board and the projection see Redis"},
	{"github.com/wangkuiyi/gotorch/...", []string{"worker/trainer/..."}, "only the trainer sees libtorch"},
	{"github.com/MaxHalford/eaopt/...", []string{"tuner/search/..."}, "only search sees eaopt"},
	{"github.com/c-bata/goptuna/...", []string{"tuner/search/..."}, "only search sees goptuna"},
	{"github.com/ebitengine/purego/...", []string{"common/nvml/..."}, "only nvml loads a library"},
	{"github.com/landlock-lsm/go-landlock/...", []string{"worker/confine/..."}, "only confine knows Landlock"},
	{"github.com/shirou/gopsutil/...", []string{"common/sysmetrics/..."}, "only sysmetrics reads the machine"},
	{"C", []string{"worker/trainer/..."}, "only the trainer uses cgo"},
	{module + "/coordinator/member/...", []string{"coordinator", "coordinator/member/..."}, "membership is wired by the program; duties and the API ask raft"},
	{module + "/coordinator/...", []string{"coordinator/..."}, "the coordinator's rooms are its own; others speak to its API"},
	{module + "/worker/...", []string{"worker/..."}, "the worker's rooms are its own"},
	{module + "/tuner/cli/...", []string{"tuner", "tuner/cli/..."}, "the command line is a rim"},
	{module + "/tuner/...", []string{"tuner/...", "coordinator/...", "deploy/..."}, "search and specs serve the coordinator; data and reports serve the person"},
	{module + "/deploy/...", []string{"deploy/..."}, "nothing depends on deployment"},
}

// schema are the API's types and calls and the library that carries them. Only
// these trees see them, and tests: all others speak to the API by common/client and
// in the nouns of common/trial.
var schema = []string{module + "/common/proto/atelier/...", "connectrpc.com/connect"}

var schemaTrees = []string{"common/proto/...", "common/client", "common/trial/wire",
	"coordinator/api", "coordinator/state", "coordinator/replica/bench", "coordinator/coordinatortest/..."}

// pure packages take time, randomness and files through parameters.
var pure = map[string][]string{
	"coordinator/state": {"os", "net", "net/http", "time", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"},
	"common/spec":       {"os", "net", "net/http", "time", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"},
	"common/space":      {"os", "net", "net/http", "time", "crypto/rand", "log", "log/slog"},
	"tuner/stop":        {"os", "net", "net/http", "time", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"},
	// Durations and times it may name; TestSteppedRoomsHaveNoClock holds the rest.
	"coordinator/duty/assign": {"os", "net", "net/http", "context", "sync", "sync/atomic", "math/rand", "math/rand/v2", "crypto/rand", "log", "log/slog"},
}

// stepped packages are functions of events and times: nothing in them runs by itself.
var stepped = []string{"coordinator/duty/assign"}

func load(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-tags", "libtorch", "-json=ImportPath,Name,Imports,TestImports,XTestImports,CgoFiles", "./...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func in(importPath, tree string) bool {
	root, all := strings.CutSuffix(tree, "/...")
	return importPath == root || all && strings.HasPrefix(importPath, root+"/")
}

func allowed(from, imported string) (bool, string) {
	room := strings.TrimPrefix(strings.TrimPrefix(from, module), "/")
	for _, r := range may {
		if !in(imported, r.imported) {
			continue
		}
		for _, by := range r.by {
			if in(room, by) {
				return true, ""
			}
		}
		return false, r.why
	}
	// What no rule names: common imports nothing of the other rooms, which the
	// rules above say already, and everything may import common and libraries.
	return true, ""
}

// seesSchema reports whether a package takes the API's generated types though it
// speaks in nouns.
func seesSchema(importer, imported string) bool {
	room := strings.TrimPrefix(importer, module+"/")
	return slices.ContainsFunc(schema, func(tree string) bool { return in(imported, tree) }) &&
		!slices.ContainsFunc(schemaTrees, func(tree string) bool { return in(room, tree) })
}

func TestImportRules(t *testing.T) {
	pkgs := load(t)
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: the rules were not checked", len(pkgs))
	}
	mains := map[string]bool{}
	for _, p := range pkgs {
		if p.Name == "main" {
			mains[p.ImportPath] = true
		}
	}
	for _, p := range pkgs {
		imports := append([]string{}, p.Imports...)
		if len(p.CgoFiles) > 0 {
			imports = append(imports, "C")
		}
		for _, imported := range append(append(imports, p.TestImports...), p.XTestImports...) {
			if ok, why := allowed(p.ImportPath, imported); !ok {
				t.Errorf("%s imports %s: %s", p.ImportPath, imported, why)
			}
			if mains[imported] {
				t.Errorf("%s imports %s, a program", p.ImportPath, imported)
			}
		}
		for _, imported := range p.Imports {
			if seesSchema(p.ImportPath, imported) {
				t.Errorf("%s imports %s: it speaks in the nouns of common/trial, and to the API by common/client", p.ImportPath, imported)
			}
			for _, not := range pure[strings.TrimPrefix(p.ImportPath, module+"/")] {
				if imported == not {
					t.Errorf("%s imports %s: it takes such things through parameters", p.ImportPath, imported)
				}
			}
		}
	}
}

// clocked names what a file does that a stepped package must not: read the clock,
// wait, or begin a goroutine.
func clocked(f *ast.File) (found []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, "go")
		case *ast.SelectStmt:
			found = append(found, "select")
		case *ast.ChanType:
			found = append(found, "chan")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" {
				switch n.Sel.Name {
				case "Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker":
					found = append(found, "time."+n.Sel.Name)
				}
			}
		}
		return true
	})
	return found
}

func TestSteppedRoomsHaveNoClock(t *testing.T) {
	for _, room := range stepped {
		files, err := filepath.Glob("../../" + room + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", room, len(files), err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			if found := clocked(f); len(found) > 0 {
				t.Errorf("%s: %v: time and what happens come in through parameters", file, found)
			}
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "breach.go", "package p; func f(c chan int) { go f(c); select {}; time.Now() }", 0)
	if found := clocked(f); err != nil || len(found) != 4 {
		t.Errorf("of four breaches %v are seen: %v", found, err)
	}
}

// The rules themselves: a breach of each must be seen.
func TestRulesCatchABreach(t *testing.T) {
	for _, breach := range [][2]string{
		{"common/space", module + "/tuner/search"},
		{"common/client", module + "/coordinator/state"},
		{"coordinator/api", "github.com/hashicorp/raft"},
		{"coordinator/api", "github.com/redis/go-redis/v9"},
		{"worker/agent", module + "/tuner/sweep"},
		{"tuner/cli", module + "/worker/agent"},
		{"worker/agent", "C"},
		{"worker/slots", "github.com/ebitengine/purego"},
		{"worker/agent", "github.com/shirou/gopsutil/v4/mem"},
		{"worker/slots", "github.com/wangkuiyi/gotorch/nn"},
		{"coordinator/duty/propose", "github.com/c-bata/goptuna"},
		{"coordinator/api", module + "/tuner/cli"},
		{"coordinator/replica", module + "/coordinator/member"},
	} {
		if ok, _ := allowed(path.Join(module, breach[0]), breach[1]); ok {
			t.Errorf("%s may import %s: the rule is gone", breach[0], breach[1])
		}
	}
	for importer, sees := range map[string]bool{"worker/agent": true, "tuner/cli": true, "coordinator/board": true, "deploy/bench/cluster": true, "common/client": false, "coordinator/api": false} {
		for _, imported := range []string{module + "/common/proto/atelier/v1/atelierv1connect", "connectrpc.com/connect"} {
			if seesSchema(path.Join(module, importer), imported) != sees {
				t.Errorf("%s may import %s: %v", importer, imported, sees)
			}
		}
	}
}
