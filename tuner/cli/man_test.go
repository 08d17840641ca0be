package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"atelier/common/exit"
	"atelier/tuner/cli"

	ucli "github.com/urfave/cli/v2"
)

// unroff is a text without roff's escapes.
var unroff = strings.NewReplacer(`\-`, "-", `\(aq`, "'", `\(dq`, `"`, `\(ti`, "~", `\(ha`, "^", "\\(ga", "`", `\e`, `\`, `\&`, "")

// terms are the items of a page, from a heading on to the next of its level.
func terms(page, heading string) (out []string) {
	if heading != "" {
		_, page, _ = strings.Cut(page, heading)
		page, _, _ = strings.Cut(page, "\n.SH ")
	}
	for _, m := range regexp.MustCompile(`(?m)^\.TP\n\\fB(.*)\\fR$`).FindAllStringSubmatch(page, -1) {
		out = append(out, unroff.Replace(m[1]))
	}
	return out
}

// The manual pages have every key that the parser takes, every command with every
// flag, every exit code, and no other.
func TestManualPages(t *testing.T) {
	dir := t.TempDir()
	if r := run(t, dir, "man", "pages"); r.code != 0 || !strings.Contains(r.err, "pages in pages") {
		t.Fatalf("%+v", r)
	}
	page := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, "pages", "man"+name[len(name)-1:], name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, d := range cli.References {
		name, heading := "atelier-settings.5", ".SH \"ATELIER "+strings.ToUpper(d.Command)+"\""
		if d.Prefix == "" {
			name, heading = "atelier-spec.5", ""
		}
		if got := terms(page(name), heading); !slices.Equal(got, d.Table.Names()) {
			t.Errorf("%s has of %s\n%q\nnot\n%q", name, d.Command, got, d.Table.Names())
		}
	}
	var codes []string
	for _, c := range exit.Atelier {
		codes = append(codes, regexp.MustCompile(`\d+`).FindString(exit.Text([]exit.Code{c}, "")))
	}
	commands := 0
	cli.Verbs(func(path []string, c *ucli.Command) {
		commands++
		text := page("atelier-" + path[0] + ".1")
		if got := terms(text, ".SH \"EXIT STATUS\""); !slices.Equal(got, codes) {
			t.Errorf("%s: exit codes %q", path[0], got)
		}
		part := text
		if len(path) > 1 {
			_, after, ok := strings.Cut(text, ".SS \"atelier "+strings.ReplaceAll(strings.Join(path, " "), "-", `\-`))
			if !ok {
				t.Errorf("atelier-%s.1 lacks %q", path[0], path)
			}
			part, _, _ = strings.Cut(after, "\n.S")
		} else if _, after, ok := strings.Cut(text, ".SH \"OPTIONS\""); ok {
			part, _, _ = strings.Cut(after, "\n.SH ")
		} else {
			part = ""
		}
		var got, want []string
		for _, term := range terms(part, "") {
			got = append(got, regexp.MustCompile(`--[a-z0-9-]+`).FindString(term))
		}
		for _, f := range c.Flags {
			if v, ok := f.(ucli.VisibleFlag); (!ok || v.IsVisible()) && f != ucli.HelpFlag {
				want = append(want, "--"+f.Names()[0])
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("the page of %q has the flags %q, not %q", path, got, want)
		}
		if !strings.Contains(unroff.Replace(text), strings.Split(c.UsageText, "\n")[0]) {
			t.Errorf("the page of %q lacks its first example", path)
		}
	})
	if commands < 50 {
		t.Errorf("%d commands", commands)
	}
	// Whoever has groff lets it judge; the structure was looked at above.
	groff, err := exec.LookPath("groff")
	if err != nil {
		return
	}
	pages, _ := filepath.Glob(filepath.Join(dir, "pages", "*", "*"))
	if len(pages) < 15 {
		t.Errorf("%d pages", len(pages))
	}
	for _, p := range pages {
		if out, err := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z", p).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("groff of %s: %v\n%s", filepath.Base(p), err, out)
		}
	}
}

// A help shows no default where there is none.
func TestHelpsHaveNoEmptyDefaults(t *testing.T) {
	help := run(t, t.TempDir(), "--help").out
	cli.Verbs(func(path []string, _ *ucli.Command) { help += run(t, t.TempDir(), append(path, "--help")...).out })
	for _, noise := range []string{"(default: 0)", "(default: false)", "(default: 0s)", `(default: "")`} {
		if strings.Contains(help, noise) {
			t.Errorf("%d times %s", strings.Count(help, noise), noise)
		}
	}
	if !strings.Contains(help, `(default: "table")`) || !strings.Contains(help, "(default: 100)") {
		t.Error("defaults that there are have gone too")
	}
}

// Another program's word for a command names ours, and a line without a command
// shows the help.
func TestWordsOfOtherPrograms(t *testing.T) {
	for line, want := range map[string]string{
		"sweep create x.yaml":   `did you mean "submit"?`,
		"sweep logs s-a":        "did you mean atelier trial logs?",
		"sweep kill s-a":        `did you mean atelier sweep cancel or atelier sweep stop?`,
		"sweep watch s-a":       `did you mean "wait"?`,
		"sweep frobnicate":      "see atelier sweep --help",
		"logs s-a 1":            "did you mean atelier trial logs?",
		"health":                "did you mean atelier cluster status?",
		"submit x.yaml":         "did you mean atelier sweep submit?",
		"create x.yaml":         "did you mean atelier sweep submit or atelier token create?",
		"predict x.png":         `did you mean "infer"?`,
		"evaluate x.png":        `did you mean "infer"?`,
		"swep list":             `did you mean "sweep"?`,
		"trial log s-a 1":       `did you mean "logs"?`,
		"cluster health":        `did you mean "status"?`,
		"checkpoint download x": `did you mean "pull"?`,
	} {
		r := run(t, t.TempDir(), strings.Fields(line)...)
		if r.code != 2 || !strings.Contains(r.err, want) || strings.Count(r.err, ",") > 3 || r.out != "" {
			t.Errorf("atelier %s: exit %d, %s, want %s", line, r.code, r.err, want)
		}
	}
	for _, args := range [][]string{nil, {"sweep"}} {
		help := run(t, t.TempDir(), append(slices.Clone(args), "--help")...)
		if r := run(t, t.TempDir(), args...); r.code != 2 || r.out != "" || r.err != help.out {
			t.Errorf("atelier %q: exit %d, %s%s", args, r.code, r.out, r.err)
		}
	}
	if r, flag := run(t, t.TempDir(), "version"), run(t, t.TempDir(), "--version"); r.code != 0 || r.out == "" || r.out != flag.out {
		t.Errorf("version: %+v, --version: %+v", r, flag)
	}
}

// A point that is no JSON object is a slip of the command line.
func TestEnqueueWantsJSON(t *testing.T) {
	f := start(t)
	for _, point := range []string{"lr=0.1", "[1]", "3", "null", `{"lr":}`} {
		if r := run(t, t.TempDir(), "sweep", "enqueue", "s-aaaaaaaa", "--params", point); r.code != 2 || !strings.Contains(r.err, "want a JSON object") {
			t.Errorf("%s: %+v", point, r)
		}
	}
	if len(f.requests) > 0 {
		t.Errorf("sent %v", f.requests)
	}
}

// What a person names and is not there has exit code 3, whatever the command does
// with it.
func TestMissingFilesHaveOneExitCode(t *testing.T) {
	start(t)
	for _, line := range []string{"data info nope", "data split nope out", "data cleanup nope", "data pack nope", "metadata query nope", "weights convert nope.pth x.safetensors",
		"cluster restore nope --yes", "sweep submit nope.yaml", "train --config nope.yaml", "serve --checkpoint nope", "data scrape out --class a --key-file nope", "tune --resume nope", "train --resume nope"} {
		if r := run(t, t.TempDir(), strings.Fields(line)...); r.code != exit.NotFound || r.err == "" {
			t.Errorf("%s: exit %d, %s", line, r.code, r.err)
		}
	}
}
