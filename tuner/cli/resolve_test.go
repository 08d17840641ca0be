package cli_test

import (
	"strings"
	"testing"
	"time"

	v1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// sweepsOf are sweeps to be named, newest first.
func sweepsOf(names ...string) (out []*v1.Sweep) {
	for i, n := range names {
		id, name, _ := strings.Cut(n, " ")
		out = append(out, &v1.Sweep{Id: id, Name: name, Kind: v1.Kind_KIND_TRAINING, Status: wire.ToSweepStatus(trial.SweepRunning), Objective: objective(), CreatedMs: ms(time.Duration(i+1) * time.Hour)})
	}
	return out
}

// Every command that takes a sweep takes its id, the beginning of one, its name, or @.
func TestSweepsAreNamed(t *testing.T) {
	f := start(t)
	f.listed = sweepsOf("s-aaaaaaaa facades", "s-cccccccc rich", "s-ccb2zzzz again", "s-bbbbbbbb again", "s-2222aaaa @x")
	for _, tc := range []struct {
		word string
		code int
		want string // in what is written
	}{
		{"s-aaaaaaaa", 0, "s-aaaaaaaa"},
		{"s-aa", 0, "s-aa is sweep s-aaaaaaaa, facades, running"},
		{"aaa", 0, "aaa is sweep s-aaaaaaaa, facades, running"},
		{"facades", 0, "facades is sweep s-aaaaaaaa, running"},
		{"@", 0, "@ is sweep s-aaaaaaaa, facades"},
		{"@1", 0, "is sweep s-aaaaaaaa"},
		{"@2", 0, "is sweep s-cccccccc"},
		{"again@2", 0, "is sweep s-bbbbbbbb"},
		{"@9", 3, "@9: there are 5 sweeps"},
		{"again@3", 3, `again@3: there are 2 sweeps with the name "again"`},
		{"again", 2, "\"again\" is the name of 2 sweeps; give the id of one, or again@ for the newest, again@2 for the one before it:\n  s-ccb2zzzz  again  running  3h00m old\n  s-bbbbbbbb  again  running  4h00m old\n"},
		{"s-cc", 2, "\"s-cc\" begins the ids of 2 sweeps; give the id of one:\n  s-cccccccc  rich   running  2h00m old\n"},
		{"facade", 3, `no sweep has the id or the name "facade"; did you mean "facades"?`},
		{"zz", 3, `no sweep has the id or the name "zz"; atelier sweep list shows them`},
		{"zz@", 3, `no sweep has the id or the name "zz"`},
	} {
		r := run(t, t.TempDir(), "sweep", "show", tc.word)
		if r.code != tc.code || !strings.Contains(r.out+r.err, tc.want) {
			t.Errorf("%s: want exit %d with %q, got %+v", tc.word, tc.code, tc.want, r)
		}
	}
	for _, args := range [][]string{
		{"sweep", "wait", "facades"}, {"sweep", "pause"}, {"sweep", "resume"}, {"sweep", "stop"}, {"sweep", "cancel"}, {"sweep", "show"},
		{"sweep", "extend", "facades", "--trials", "1"}, {"sweep", "enqueue", "facades", "--params", "{}"}, {"sweep", "priority", "facades", "1"},
		{"sweep", "verify"}, {"sweep", "importance"}, {"sweep", "progress"}, {"leaderboard"}, {"trial", "list"}, {"trial", "show", "facades", "7"},
		{"trial", "curve", "facades", "7"}, {"trial", "logs", "facades", "7"}, {"trial", "stop", "facades", "7"}, {"trial", "retry", "facades", "7"},
		{"trial", "ask", "facades", "--wait", "0s"}, {"trial", "tell", "facades", "7"}, {"checkpoint", "list"}, {"checkpoint", "pull", "facades", "7"},
		{"sweep", "report"}, {"sweep", "export-mlflow", "facades", "--mlflow-uri", "mlruns"},
		{"--addr", f.files, "infer", "--checkpoint", "facades/7/9", "--image-dir", "."},
	} {
		if len(args) < 3 {
			args = append(args, "facades")
		}
		f.mu.Lock()
		f.waits = []*v1.Sweep{{Id: "s-aaaaaaaa", Status: wire.ToSweepStatus(trial.SweepFinished), Objective: objective(), Counts: &v1.SweepCounts{}}}
		f.mu.Unlock()
		if r := run(t, t.TempDir(), args...); !strings.Contains(r.err, "facades is sweep s-aaaaaaaa, running\n") {
			t.Errorf("%q: %+v", args, r)
		}
	}
	// Who asks for quiet gets it.
	if r := run(t, t.TempDir(), "checkpoint", "pull", "facades", "7", "-q"); r.code != 0 || r.err != "" {
		t.Errorf("%+v", r)
	}
}

// What deletes or cancels does not let a name hide the beginning of another sweep's id, and
// undelete's @ counts what is deleted.
func TestStrictChoice(t *testing.T) {
	f := start(t)
	f.listed = sweepsOf("s-aaaaaaaa bb", "s-bbbbbbbb gone", "s-cccccccc s-bb", "s-dddddddd gone")
	for _, s := range f.listed {
		s.Status = wire.ToSweepStatus(trial.SweepFinished)
	}
	f.listed[1].DeletedMs, f.listed[3].DeletedMs = 1, 1
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"sweep show bb", 0, "bb is sweep s-aaaaaaaa"},
		{"sweep undelete @", 0, "@ is sweep s-bbbbbbbb"},
		{"sweep undelete @2", 0, "@2 is sweep s-dddddddd"},
		{"sweep delete --now --yes bb", 2, `"bb" is the name or begins the id of 2 sweeps; give the id of one:`},
		{"sweep delete --now --yes s-bb", 2, `"s-bb" is the name or begins the id of 2 sweeps; give the id of one:`},
		{"sweep cancel s-cc", 0, "s-cc is sweep s-cccccccc"},
		{"sweep cancel aa", 0, "aa is sweep s-aaaaaaaa"},
	} {
		if r := run(t, t.TempDir(), strings.Fields(tc.args)...); r.code != tc.code || !strings.Contains(r.out+r.err, tc.want) {
			t.Errorf("%s: want exit %d with %q, got %+v", tc.args, tc.code, tc.want, r)
		}
	}
	f.listed = sweepsOf("s-aaaaaaaa bb", "s-bbbbbbbb again")
	if r := run(t, t.TempDir(), "sweep", "cancel", "bb"); r.code != 2 || !strings.Contains(r.err, "s-bbbbbbbb") {
		t.Errorf("%+v", r)
	}
	// Nothing is read or sent for an alias that cannot be.
	if r := run(t, t.TempDir(), "checkpoint", "push", "nosuch.pth", "--as", "BAD ALIAS"); r.code != 2 || !strings.Contains(r.err, `--as "BAD ALIAS" is not an alias`) {
		t.Errorf("%+v", r)
	}
}

// After an inference @ is that run for commands that look at any sweep, and the
// newest training for those that want models or results of one.
func TestNewestLeavesOutInference(t *testing.T) {
	f := start(t)
	f.listed = sweepsOf("s-iiiiiiii look", "s-aaaaaaaa facades", "s-jjjjjjjj look", "s-bbbbbbbb facades")
	f.listed[0].Kind, f.listed[2].Kind = v1.Kind_KIND_INFERENCE, v1.Kind_KIND_INFERENCE
	for _, args := range [][]string{{"leaderboard"}, {"sweep", "progress"}, {"sweep", "importance"}, {"checkpoint", "list"}} {
		for word, want := range map[string]string{"@": "@ is sweep s-aaaaaaaa", "@2": "@2 is sweep s-bbbbbbbb", "@3": "there are 2 sweeps"} {
			if r := run(t, t.TempDir(), append(args, word)...); !strings.Contains(r.err, want) {
				t.Errorf("%q %s: %+v", args, word, r)
			}
		}
	}
	for _, args := range [][]string{{"sweep", "show"}, {"sweep", "cancel"}, {"trial", "list"}} {
		if r := run(t, t.TempDir(), append(args, "@")...); !strings.Contains(r.err, "@ is sweep s-iiiiiiii") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
