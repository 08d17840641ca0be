package cli_test

import (
	"strings"
	"testing"

	"atelier/tuner/cli"

	ucli "github.com/urfave/cli/v2"
)

func TestArrange(t *testing.T) {
	cases := []struct{ in, want, err string }{
		// Flags before, after and between arguments.
		{in: "sweep submit --follow spec.yaml", want: "sweep submit --follow -- spec.yaml"},
		{in: "sweep submit spec.yaml --follow", want: "sweep submit --follow -- spec.yaml"},
		{in: "trial show s-1 -o json 7", want: "trial show --output=json -- s-1 7"},
		{in: "trial list s-1 --state failed --state stopped --limit=3", want: "trial list --state=failed --state=stopped --limit=3 -- s-1"},
		// Values: joined or not, looking like flags or verbs, empty.
		{in: "leaderboard s-1 --top=5 -o=csv", want: "leaderboard --top=5 --output=csv -- s-1"},
		{in: "leaderboard s-1 -n 5", want: "leaderboard --top=5 -- s-1"},
		{in: "sweep extend s-1 --trials -5", want: "sweep extend --trials=-5 -- s-1"},
		{in: "sweep submit spec.yaml --base-dir --follow", want: "sweep submit --base-dir=--follow -- spec.yaml"},
		{in: "sweep submit --base-dir= spec.yaml", want: "sweep submit --base-dir= -- spec.yaml"},
		{in: "sweep simulate spec.yaml --exec list", want: "sweep simulate --exec=list -- spec.yaml"},
		{in: "sweep submit --follow=false spec.yaml", want: "sweep submit --follow=false -- spec.yaml"},
		// One dash serves as two.
		{in: "sweep submit spec.yaml -follow", want: "sweep submit --follow -- spec.yaml"},
		// Global flags wherever they stand.
		{in: "--addr a:1 sweep list", want: "--addr=a:1 sweep list"},
		{in: "sweep --addr a:1 list", want: "--addr=a:1 sweep list"},
		{in: "sweep list --timeout 3s --addr=a:1", want: "--timeout=3s --addr=a:1 sweep list"},
		// What follows -- is no flag; - is an argument.
		{in: "sweep show -- --odd", want: "sweep show -- --odd"},
		{in: "sweep show -o json -- -o", want: "sweep show --output=json -- -o"},
		{in: "sweep submit --follow -", want: "sweep submit --follow -- -"},
		{in: "sweep show -- --", want: "sweep show -- --"},
		// Arguments that look like verbs.
		{in: "sweep show list", want: "sweep show -- list"},
		{in: "sweep show help", want: "sweep show -- help"},
		// Aliases, help, version.
		{in: "sweep ls", want: "sweep list"},
		{in: "lb s-1", want: "leaderboard -- s-1"},
		{in: "sweep submit spec.yaml --help", want: "sweep submit --help"},
		{in: "sweep submit --follow -h", want: "sweep submit --help"},
		{in: "help sweep submit", want: "sweep submit --help"},
		{in: "sweep help", want: "sweep --help"},
		{in: "--help", want: "--help"},
		{in: "--version", want: "--version"},
		// Refused.
		{in: "", err: "give a command"},
		{in: "sweep", err: "give a command"},
		{in: "sweep --addr a:1", err: "give a command"},
		{in: "sweeps list", err: `did you mean "sweep"?`},
		{in: "sweep sumbit x", err: `did you mean "submit"?`},
		{in: "sweep sub x", err: `did you mean "submit"?`},
		{in: "leaderbord s-1", err: `did you mean "leaderboard"?`},
		{in: "zzz", err: "see atelier --help"},
		{in: "sweep submit spec.yaml --folow", err: "did you mean --follow?"},
		{in: "sweep submit spec.yaml --adr a:1", err: "did you mean --addr?"},
		{in: "sweep submit spec.yaml -x", err: "unknown flag -x"},
		{in: "sweep submit spec.yaml --base-dir", err: "needs a value"},
		{in: "sweep list -5", err: "unknown flag -5"},
	}
	for _, tc := range cases {
		got, err := cli.Arrange(strings.Fields(tc.in))
		text := strings.Join(got, " ")
		switch {
		case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%q: got %q, error %v; want an error with %q", tc.in, text, err, tc.err)
		case tc.err == "" && (err != nil || text != tc.want):
			t.Errorf("%q: got %q, error %v; want %q", tc.in, text, err, tc.want)
		}
	}
}

func FuzzArrange(f *testing.F) {
	f.Add("sweep\x00submit\x00spec.yaml\x00--follow")
	f.Add("--addr\x00a:1\x00trial\x00show\x00--\x00-o")
	f.Add("help\x00sweep\x00-o=\x00=")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\x00")
		out, err := cli.Arrange(args)
		if err != nil {
			return
		}
		// Arranging what is arranged changes nothing.
		again, err := cli.Arrange(out)
		if err != nil || strings.Join(again, "\x00") != strings.Join(out, "\x00") {
			t.Errorf("%q became %q, then %q (%v)", args, out, again, err)
		}
	})
}

// Each verb explains itself with an example that is a valid command line.
func TestHelpOfEachVerb(t *testing.T) {
	n := 0
	cli.Verbs(func(path []string, c *ucli.Command) {
		n++
		name := "atelier " + strings.Join(path, " ")
		r := run(t, t.TempDir(), append(path, "--help")...)
		if r.code != 0 || r.err != "" {
			t.Errorf("%s --help: exit %d, %s", name, r.code, r.err)
		}
		_, examples, ok := strings.Cut(r.out, "EXAMPLES:\n")
		if !ok || !strings.Contains(examples, "   "+name) && !strings.Contains(examples, "| "+name) {
			t.Errorf("%s --help has no example:\n%s", name, r.out)
			return
		}
		examples, _, _ = strings.Cut(examples, "\n\n")
		for line := range strings.Lines(examples) {
			_, cmd, ok := strings.Cut(line, "atelier ")
			if !ok {
				t.Errorf("%s: example without the command: %s", name, line)
				continue
			}
			cmd = strings.FieldsFunc(cmd, func(r rune) bool { return strings.ContainsRune("|>&)", r) })[0]
			if _, err := cli.Arrange(split(cmd)); err != nil {
				t.Errorf("%s: example %q: %v", name, cmd, err)
			}
		}
	})
	if n < 25 {
		t.Errorf("only %d verbs", n)
	}
}
