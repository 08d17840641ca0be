// Command skips reads what `go test -json` says, shows of it what `go test` shows,
// and names the tests that were skipped without being on its list. With MUST_RUN=1
// such a skip is a failure: a promise must not go untested because something is
// missing on the machine that tests it.
package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

//go:embed skips.txt
var list string

func main() {
	skipped, failed, err := watch(os.Stdin, os.Stdout, parse(list))
	if err != nil {
		fmt.Fprintln(os.Stderr, "skips: read the tests' output:", err)
		os.Exit(1)
	}
	for _, s := range skipped {
		fmt.Fprintf(os.Stderr, "skipped, and not in deploy/skips/skips.txt: %s\n", s)
	}
	if failed || len(skipped) > 0 && os.Getenv("MUST_RUN") == "1" {
		os.Exit(1)
	}
}

// row allows the skips of a package, or of a tree of them, that say these words.
type row struct{ tree, words string }

func parse(list string) (rows []row) {
	for line := range strings.Lines(list) {
		tree, words, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !strings.HasPrefix(tree, "#") {
			rows = append(rows, row{"atelier/" + tree, strings.TrimSpace(words)})
		}
	}
	return rows
}

func (r row) allows(pkg, said string) bool {
	root, all := strings.CutSuffix(r.tree, "/...")
	return (pkg == root || all && strings.HasPrefix(pkg, root+"/")) && strings.Contains(said, r.words)
}

// event is one line of `go test -json`; see `go doc test2json`.
type event struct{ Action, Package, Test, Output string }

// watch returns the skips that no row allows, and whether anything failed. It shows
// what packages say, and of tests what those said that failed or never ended.
func watch(in io.Reader, out io.Writer, rows []row) (skipped []string, failed bool, err error) {
	type test struct{ pkg, name string }
	said := map[test]*strings.Builder{}
	var order []test // that began and have not ended
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && len(line) == 0 {
			if err == io.EOF {
				err = nil
			}
			return skipped, failed, err
		}
		var e event
		if json.Unmarshal(line, &e) != nil { // what the go command itself says
			out.Write(line)
			continue
		}
		t := test{e.Package, e.Test}
		switch {
		case e.Action == "output" && e.Test == "", e.Action == "build-output":
			if text := e.Output; text != "PASS\n" && !strings.HasPrefix(text, "testing: warning") {
				io.WriteString(out, text)
			}
		case e.Action == "output":
			if said[t] == nil {
				said[t] = &strings.Builder{}
				order = append(order, t)
			}
			said[t].WriteString(e.Output)
		case e.Action == "fail" || e.Action == "build-fail":
			failed = true
			for _, o := range order { // a package's end is that of all its tests
				if said[o] != nil && (o == t || e.Test == "" && o.pkg == e.Package) {
					io.WriteString(out, said[o].String())
					delete(said, o)
				}
			}
		case e.Action == "skip" && e.Test != "":
			text := ""
			if said[t] != nil {
				text = said[t].String()
			}
			allowed := false
			for _, r := range rows {
				allowed = allowed || r.allows(e.Package, text)
			}
			if !allowed {
				skipped = append(skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(text)))
			}
			delete(said, t)
		case e.Action == "pass":
			delete(said, t)
		}
	}
}

// reason is what a test said, without the lines about its beginning and end.
func reason(said string) string {
	var words []string
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	return strings.Join(words, " ")
}
