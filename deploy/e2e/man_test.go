package e2e_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The manual pages of the services have every flag of their help, and its exit
// codes.
func TestServicesHaveManualPages(t *testing.T) {
	for _, name := range []string{"atelier-coordinator", "atelier-worker"} {
		program := filepath.Join(bin, name)
		page, err := exec.Command(program, "--man").Output()
		if err != nil {
			t.Fatalf("%s --man: %v", name, err)
		}
		help, err := exec.Command(program, "--help").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(help)) {
			if line = strings.TrimSpace(line); len(line) > 80 && strings.Contains(line, " ") {
				t.Errorf("%s --help: a line of %d columns: %s", name, len(line), line)
			}
		}
		text := strings.ReplaceAll(string(page), `\-`, "-")
		flags := regexp.MustCompile(`(?m)^   (--[a-z-]+)`).FindAllStringSubmatch(string(help), -1)
		codes := regexp.MustCompile(`(?m)^ +(\d+) +[a-z]`).FindAllStringSubmatch(string(help), -1)
		if len(flags) < 10 || len(codes) < 3 || !strings.HasPrefix(text, ".TH \"") || strings.Contains(string(help), "(default: false)") {
			t.Fatalf("%d flags, %d exit codes\n%s%s", len(flags), len(codes), help, page)
		}
		for _, f := range flags {
			if f[1] != "--help" && f[1] != "--version" && !strings.Contains(text, `\fB`+f[1]) {
				t.Errorf("%s(8) lacks %s", name, f[1])
			}
		}
		for _, c := range codes {
			if !strings.Contains(text, ".TP\n\\fB"+c[1]+"\\fR\n") {
				t.Errorf("%s(8) lacks exit code %s", name, c[1])
			}
		}
		if groff, err := exec.LookPath("groff"); err == nil {
			cmd := exec.Command(groff, "-man", "-Tutf8", "-ww", "-z")
			cmd.Stdin = strings.NewReader(string(page))
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Errorf("groff of %s: %v\n%s", name, err, out)
			}
		}
	}
}
