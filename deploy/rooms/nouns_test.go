package rooms_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

var (
	// The schema's enums are named by the table to common/trial alone: whoever
	// else names one has words, and an "is it over?", of its own.
	enumName = regexp.MustCompile(`\.(SweepStatus|TrialStatus|ExitClass|Verdict|Direction|Outcome|ProposalSource|SweepAction)_[A-Z]`)
	enumCut  = regexp.MustCompile(`(Trim|Cut)Prefix\(.*"(SWEEP_STATUS|TRIAL_STATUS|EXIT_CLASS|VERDICT|DIRECTION|OUTCOME|PROPOSAL_SOURCE|SWEEP_ACTION)_`)
)

func foreignNoun(path, line string) bool {
	if strings.HasPrefix(path, "common/trial/wire/") || strings.HasPrefix(path, "common/proto/") {
		return false
	}
	return enumName.MatchString(line) || enumCut.MatchString(line)
}

func TestNounsHaveOneTable(t *testing.T) {
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard", "*.go")
	list.Dir = "../.."
	out, err := list.Output()
	files := strings.Fields(string(out))
	if err != nil || len(files) < 100 {
		t.Fatalf("git found %d files, %v: the rule was not checked", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile("../../" + path)
		if os.IsNotExist(err) || path == "deploy/rooms/nouns_test.go" {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			if foreignNoun(path, line) {
				t.Errorf("%s:%d names the schema's word for a noun: take common/trial's, through common/trial/wire", path, i+1)
			}
		}
	}
}

func TestNounRuleCatchesABreach(t *testing.T) {
	for _, line := range []string{
		"if s.Status == atelierv1.SweepStatus_SWEEP_STATUS_RUNNING {",
		"case v1.ExitClass_EXIT_CLASS_LOST:",
		`x := strings.ToLower(strings.TrimPrefix(s.Status.String(), "TRIAL_STATUS_"))`,
		`rest, ok := strings.CutPrefix(s, "VERDICT_")`,
	} {
		if !foreignNoun("tuner/cli/x.go", line) || foreignNoun("common/trial/wire/wire.go", line) {
			t.Errorf("%s: the rule is gone", line)
		}
	}
	if foreignNoun("tuner/cli/x.go", "func f(s atelierv1.SweepStatus) trial.SweepStatus { return wire.SweepStatus(s) }") {
		t.Error("a type's name is no breach")
	}
}
