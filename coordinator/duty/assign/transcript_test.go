package assign_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/duty/assign"
)

var update = flag.Bool("update", false, "write the transcripts' answers anew")

// TestTranscripts plays testdata/*.txt: lines that begin with "> " are what
// happens, the lines behind them what the scheduler wants done, and when. What it
// gives to the log is carried out at once, in a state machine, unless the log is
// told to hold it. Run with -update to write the answers. The verbs:
//
//	elect                                another leader, on the state as it is
//	create S trials=3 parallelism=3 trainer=sim priority=0 requires=k:v bytes=0 stopping={}
//	pause|resume|cancel S; priority S N; drain|undrain WORKER
//	ask WORKER/SLOT request= incarnation=i1 trainers=sim labels=k:v folder= sweep= term=
//	leave N                              waiter N's time is over
//	beat WORKER incarnation=i1 leases=S/N,S/N folder= busy=S/N admitted draining trainers=sim labels=k:v
//	live WORKER,WORKER                   each is heard of once a second from now on, with all its leases
//	report|checkpoint S/N epoch=1 value=1; exit S/N CLASS message=; stop S/N; renew S/N
//	log hold|release|fail|heal|early     what becomes of grants and ends
//	wait 5s; stall 30s                   time passes with its ticks, or at once
//	resync; workers; note S; sweep S
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d transcripts: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(script))
			switch {
			case *update:
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			case got != string(script):
				want, have := strings.Split(string(script), "\n"), strings.Split(got, "\n")
				for i := range min(len(want), len(have)) {
					if want[i] != have[i] {
						t.Fatalf("%s:%d\nwant %s\ngot  %s", file, i+1, want[i], have[i])
					}
				}
				t.Fatalf("%s has %d lines, the run %d", file, len(want), len(have))
			}
		})
	}
}

func play(t *testing.T, script string) string {
	st := newStage()
	answering := false
	for i, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		command, is := strings.CutPrefix(line, "> ")
		switch {
		case is:
			st.out.WriteString(line + "\n")
			if err := st.happen(command); err != nil {
				t.Fatalf("line %d: %s: %v", i+1, command, err)
			}
			answering = true
		case line == "" || strings.HasPrefix(line, "#"):
			st.out.WriteString(line + "\n")
			answering = false
		case !answering:
			t.Fatalf("line %d is neither an event nor an answer: %q", i+1, line)
		}
	}
	for _, b := range st.broken {
		t.Error(b)
	}
	return st.out.String()
}

// args are the words behind a verb: those with "=" by their key, others by place.
type args map[string]string

func parse(line string) (verb string, a args) {
	words := strings.Fields(line)
	a = args{}
	n := 0
	for _, w := range words[1:] {
		if key, value, ok := strings.Cut(w, "="); ok {
			a[key] = strings.ReplaceAll(value, "_", " ")
		} else {
			a[strconv.Itoa(n)] = w
			n++
		}
	}
	return words[0], a
}

func (a args) or(key, otherwise string) string {
	if v, ok := a[key]; ok {
		return v
	}
	return otherwise
}

func (a args) number(key string, otherwise int64) int64 {
	if n, err := strconv.ParseInt(a[key], 10, 64); err == nil {
		return n
	}
	return otherwise
}

// has reports whether one of the words is this.
func (a args) has(word string) bool {
	for i := range len(a) {
		if a[strconv.Itoa(i)] == word {
			return true
		}
	}
	return false
}

func (a args) labels() map[string]string {
	m := map[string]string{}
	for _, pair := range strings.Split(a["labels"], ",") {
		if key, value, ok := strings.Cut(pair, ":"); ok {
			m[key] = value
		}
	}
	return m
}

func trialOf(text string) (sweep string, n int64) {
	sweep, number, _ := strings.Cut(text, "/")
	n, _ = strconv.ParseInt(number, 10, 64)
	return sweep, n
}

func (st *stage) happen(line string) error {
	verb, a := parse(line)
	id := a["0"]
	sweep, n := trialOf(id)
	event := func(e *atelierv1.RunEvent) {
		ref := st.ref(sweep, n)
		e.SweepId, e.Trial, e.Token = sweep, n, ref.Token
		st.do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{e}}}})
	}
	control := func(what trial.Action) {
		st.do(&logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: wire.ToAction(what)}}})
	}
	switch verb {
	case "elect":
		st.elect()
	case "create":
		c := &logv1.CreateSweep{Id: id, Name: id, Objective: wire.ToObjective(trial.Objective{Metric: "loss"}), Seed: 7,
			BudgetTrials: a.number("trials", 3), Parallelism: a.number("parallelism", 3), MaxRetries: 2, Trainer: a.or("trainer", "sim"),
			Priority: int32(a.number("priority", 0)), CheckpointBytes: a.number("bytes", 0), StoppingJson: a["stopping"]}
		if key, value, ok := strings.Cut(a["requires"], ":"); ok {
			c.Requires = []*logv1.Requirement{{Key: key, Value: value}}
		}
		st.do(&logv1.Command{Op: &logv1.Command_CreateSweep{CreateSweep: c}})
		p := &logv1.ProposeTrials{Id: id, First: 1}
		for i := range c.BudgetTrials {
			p.ParamsJson = append(p.ParamsJson, fmt.Sprintf(`{"x":%d}`, i+1))
		}
		st.do(&logv1.Command{Op: &logv1.Command_ProposeTrials{ProposeTrials: p}})
	case "pause":
		control(trial.ActionPause)
	case "resume":
		control(trial.ActionResume)
	case "cancel":
		control(trial.ActionCancel)
	case "priority":
		st.do(&logv1.Command{Op: &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: id, Priority: int32(a.number("1", 0))}}})
	case "drain", "undrain":
		st.do(&logv1.Command{Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: id, Drain: verb == "drain"}}})
	case "ask":
		worker, slot, _ := strings.Cut(id, "/")
		term, _ := time.ParseDuration(a["term"])
		st.ask(assign.Slot{Worker: worker, Name: slot, Incarnation: a.or("incarnation", "i1"), Request: a.or("request", fmt.Sprintf("r%d", st.waiter+1)),
			Trainers: strings.Split(a.or("trainers", "sim"), ","), Labels: a.labels(), Folder: a["folder"], Sweep: a["sweep"], Term: term})
	case "live":
		st.live = strings.Split(id, ",")
	case "leave":
		st.step(assign.Left{Waiter: uint64(a.number("0", 0))})
	case "beat":
		h := &atelierv1.HeartbeatRequest{Folder: a["folder"], Admitted: a.has("admitted"), Worker: &atelierv1.Worker{
			Name: id, Incarnation: a.or("incarnation", "i1"), Address: id + ":1", Draining: a.has("draining"), Trainers: strings.Split(a.or("trainers", "sim"), ","), Labels: a.labels(),
			Slots: []*atelierv1.Slot{{Name: "cpu0"}},
		}}
		if sweep, n := trialOf(a["busy"]); n > 0 {
			h.Worker.Slots[0].State, h.Worker.Slots[0].SweepId, h.Worker.Slots[0].Trial = "busy", sweep, n
		}
		for _, l := range strings.Split(a["leases"], ",") {
			if l != "" {
				h.Leases = append(h.Leases, st.ref(trialOf(l)))
			}
		}
		st.step(assign.Heard{Heartbeat: h})
	case "renew":
		st.step(assign.Renewed{Sweep: sweep, Trial: n, Token: st.ref(sweep, n).Token})
	case "report":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: int32(a.number("epoch", 1)), Metrics: []*atelierv1.Metric{{Name: "loss", Value: float64(a.number("value", 1))}}}}})
	case "checkpoint":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{
			Epoch: int32(a.number("epoch", 1)), Location: fmt.Sprintf("file-%s-%s", id, a["epoch"]), Sha256: "00", Size: 10, Worker: a["worker"],
			HasMetric: a["value"] != "", Metric: float64(a.number("value", 0)),
		}}})
	case "exit":
		class, err := trial.ParseExit(a["1"])
		if err != nil {
			return err
		}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(class), Message: a["message"]}}})
	case "stop":
		st.do(&logv1.Command{Op: &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{Id: sweep, Trial: n, Token: st.ref(sweep, n).Token, Verdict: wire.ToVerdict(trial.VerdictStop), Reason: "told to"}}})
	case "log":
		switch id {
		case "hold":
			st.hold = true
		case "release":
			st.hold = false
			st.release(len(st.pending))
		case "fail", "heal":
			st.failing = id == "fail"
		case "early":
			st.early = true
		default:
			return fmt.Errorf("log does not %q", id)
		}
	case "wait", "stall":
		d, err := time.ParseDuration(id)
		if err != nil {
			return err
		}
		if verb == "wait" {
			st.pass(d)
		} else {
			st.stall(d)
		}
	case "resync":
		st.step(assign.Resynced{})
	case "workers":
		for _, w := range st.s.Workers(st.m.View(), st.now()) {
			text := fmt.Sprintf("%s %s, seen %v ago", w.Name, w.State, st.now().Sub(time.UnixMilli(w.LastSeenMs)))
			if s := w.Slots[0]; s.State != "" {
				text += fmt.Sprintf(", %s with %s/%d", s.State, s.SweepId, s.Trial)
			}
			if w.Note != "" {
				text += ": " + w.Note
			}
			st.sayf("%s", text)
		}
	case "sweep":
		sw, _ := st.m.View().Sweep(id)
		text := fmt.Sprintf("%s %s: %d waiting, %d running, %d finished, %d failed", id, sw.Status, sw.Counts.Waiting, sw.Counts.Running, sw.Counts.Finished, sw.Counts.Failed)
		if sw.Failure != "" {
			text += "; " + sw.Failure
		}
		st.sayf("%s", text)
	case "note":
		sw, _ := st.m.View().Sweep(id)
		st.sayf("%s", st.s.Note(sw))
	default:
		return fmt.Errorf("no such verb")
	}
	return nil
}
