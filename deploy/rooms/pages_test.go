package rooms_test

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const top = "../.."

// roomsPage is the page with the table of all rooms.
const roomsPage = "deploy/docs/architecture.md"

// walk calls visit for each file of the repository, by its path from the top.
func walk(t *testing.T, visit func(file string)) {
	t.Helper()
	ignored := []string{"bin", "build", "run", "shared", "testdata", "node_modules"}
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(top, name)
		switch {
		case err != nil:
			return err
		case relErr != nil:
			return relErr
		case d.IsDir() && rel != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains(ignored, d.Name()) && !holdsCode(name)):
			return fs.SkipDir
		case !d.IsDir():
			visit(filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// holdsCode reports whether a folder is a room, though named as a folder of
// results is: deploy/local/run.
func holdsCode(folder string) bool {
	code, _ := filepath.Glob(folder + "/*.go")
	return len(code) > 0 && path.Base(filepath.ToSlash(folder)) != "testdata"
}

// rooms are what the first column of the table of rooms in architecture.md names: "common/space",
// or a tree, "common/mlflow/...". Programs are in a table of their own.
func rooms(page string) (list []string) {
	section, _, _ := strings.Cut(after(page, "## Programs and rooms"), "\n## ")
	for _, line := range strings.Split(section, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.Contains(cells[1], "---") || strings.Contains(cells[1], "**") { // "**": a heading
			continue
		}
		cell := cells[1]
		if strings.Contains(cell, "`") { // a program: its folder is in the second column
			cell = strings.TrimSuffix(strings.TrimSpace(cells[2]), "/")
		}
		for _, name := range strings.Split(cell, ",") {
			if name = strings.TrimSpace(name); name != "room" && name != "program" && name != "folder" {
				list = append(list, name)
			}
		}
	}
	return list
}

func after(text, head string) string {
	_, rest, _ := strings.Cut(text, head)
	return rest
}

// strangers are the folders with Go code that no room covers.
func strangers(folders, rooms []string) (list []string) {
	for _, folder := range folders {
		if !slices.ContainsFunc(rooms, func(room string) bool { return in(folder, room) }) {
			list = append(list, folder)
		}
	}
	return list
}

// Every room is on the map, and the map names no room that is gone.
func TestEveryRoomIsOnTheMap(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(top, roomsPage))
	if err != nil {
		t.Fatal(err)
	}
	named := rooms(string(page))
	var folders []string
	walk(t, func(file string) {
		if folder := path.Dir(file); strings.HasSuffix(file, ".go") && !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	})
	if len(folders) < 90 || len(named) < 60 {
		t.Fatalf("%d folders with code and %d rooms in %s were found: nothing was checked", len(folders), len(named), roomsPage)
	}
	for _, folder := range strangers(folders, named) {
		t.Errorf("%s: the table of rooms has no row for %s", roomsPage, folder)
	}
	for i, room := range named {
		if info, err := os.Stat(filepath.Join(top, strings.TrimSuffix(room, "/..."))); err != nil || !info.IsDir() {
			t.Errorf("%s: the table of rooms names %s, which does not exist", roomsPage, room)
		}
		if slices.Contains(named[:i], room) {
			t.Errorf("%s: the table of rooms names %s twice", roomsPage, room)
		}
	}
	if s := strangers([]string{"a", "a/b", "c/d", "c/d/e"}, []string{"a", "c/..."}); len(s) != 1 || s[0] != "a/b" {
		t.Errorf("of a, a/b, c/d, c/d/e the rooms a and c/... leave out %v", s)
	}
}

// code is what stands between backticks.
var code = regexp.MustCompile("`([^`]+)`")

// Words between backticks on the page of changes: a path; an identifier, perhaps
// with its package; a target of make; or what is none of these.
var (
	pathWord   = regexp.MustCompile(`^(common|coordinator|worker|tuner|deploy|findings)(/[A-Za-z0-9_.*-]+)*/?$|^(Makefile|README\.md|CHANGELOG\.md)$`)
	identifier = regexp.MustCompile(`^(?:[a-z]+\.)?(?:\([*]?[A-Za-z]+\)\.|[A-Z][A-Za-z]*\.)?([A-Za-z_][A-Za-z0-9]*)$`)
	makeTarget = regexp.MustCompile(`^make ([a-z-]+)$`)
)

// The page that says where to change what names files, identifiers and tests that
// are there: each identifier of a paragraph or list item in one of the files or
// folders that it names.
func TestChangePageIsTrue(t *testing.T) {
	page, err := os.ReadFile(top + "/deploy/docs/change.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(top + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	faults, checked := untrue(string(page), string(makefile))
	for _, fault := range faults {
		t.Errorf("deploy/docs/change.md: %s", fault)
	}
	if recipes := bytes.Count(page, []byte("\n## ")); recipes < 10 || checked < 100 {
		t.Errorf("%d recipes with %d names: nothing was checked", recipes, checked)
	}
	wrong := "- `tuner/stop/nowhere.go`\n- `tuner/stop/settings.go`: `Rules`, `NoSuchRule`\n- `make nothing`\n"
	if faults, _ := untrue(wrong, string(makefile)); len(faults) != 3 {
		t.Errorf("of three faults these are seen: %q", faults)
	}
}

func untrue(page, makefile string) (faults []string, checked int) {
	for _, item := range items(page) {
		var text []byte
		var words []string
		for _, m := range code.FindAllStringSubmatch(item, -1) {
			word := m[1]
			if !pathWord.MatchString(word) {
				words = append(words, word)
				continue
			}
			checked++
			found, _ := filepath.Glob(filepath.Join(top, word))
			if len(found) == 0 {
				faults = append(faults, word+" is not there")
			}
			for _, name := range found {
				text = append(text, source(name)...)
			}
		}
		for _, word := range words {
			if m := makeTarget.FindStringSubmatch(word); m != nil {
				checked++
				if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
					faults = append(faults, "there is no `"+word+"`")
				}
				continue
			}
			m := identifier.FindStringSubmatch(word)
			if m == nil || len(text) == 0 {
				continue
			}
			checked++
			if !regexp.MustCompile(`\b` + m[1] + `\b`).Match(text) {
				faults = append(faults, word+" stands in none of the files named beside it")
			}
		}
	}
	return faults, checked
}

// items are the page's list items and paragraphs.
func items(page string) (list []string) {
	var b strings.Builder
	for s := bufio.NewScanner(strings.NewReader(page + "\n")); s.Scan(); {
		line := s.Text()
		if starts := regexp.MustCompile(`^(\s*$|#|\d+\. |- )`).MatchString(line); starts && b.Len() > 0 {
			list = append(list, b.String())
			b.Reset()
		}
		b.WriteString(line + "\n")
	}
	return append(list, b.String())
}

// source is a file, or all Go files of a folder.
func source(name string) (text []byte) {
	if info, err := os.Stat(name); err != nil || !info.IsDir() {
		text, _ = os.ReadFile(name)
		return text
	}
	files, _ := filepath.Glob(name + "/*.go")
	for _, file := range files {
		part, _ := os.ReadFile(file)
		text = append(text, part...)
	}
	return text
}

// widest is how many columns a line of prose takes, so that a change of a page can
// be read as a difference of lines.
const widest = 120

// whole are what a line is not broken in: code, links, images.
var whole = regexp.MustCompile("`[^`]+`|!?\\[[^\\]]*\\]\\([^)]*\\)")

// long are the numbers of lines that are too wide. Tables, code, and lines that
// cannot be broken may be.
func long(page string) (numbers []int) {
	fence, indented, blank := false, false, true
	for i, line := range strings.Split(page, "\n") {
		text := strings.TrimSpace(line)
		indented = strings.HasPrefix(line, "    ") && (indented || blank)
		blank = text == ""
		switch {
		case indented:
		case strings.HasPrefix(text, "```"):
			fence = !fence
		case fence || strings.HasPrefix(text, "|") || strings.HasPrefix(text, "#") || utf8.RuneCountInString(line) <= widest:
		case strings.Contains(strings.TrimLeft(whole.ReplaceAllString(text, "x"), "-0123456789. "), " "):
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// Lines of pages are wrapped, CHANGELOG.md's apart, where a change is a line.
func TestPagesAreWrapped(t *testing.T) {
	pages := 0
	walk(t, func(file string) {
		if !strings.HasSuffix(file, ".md") || file == "CHANGELOG.md" {
			return
		}
		pages++
		text, err := os.ReadFile(filepath.Join(top, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range long(string(text)) {
			t.Errorf("%s:%d: wider than %d columns: break it at a space", file, n, widest)
		}
	})
	if pages < 50 {
		t.Fatalf("%d pages: nothing was checked", pages)
	}
	wide := strings.Repeat("wide ", 30)
	page := strings.Join([]string{wide, "| " + wide + "|", "```", wide, "```", "- `" + wide + "`", "- [" + wide + "](x) " + wide, "", "    " + wide}, "\n")
	if got := long(page); !slices.Equal(got, []int{1, 7}) {
		t.Errorf("of the lines 1 and 7 of seven these are found too wide: %v", got)
	}
}
