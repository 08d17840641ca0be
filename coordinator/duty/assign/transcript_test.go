package assign_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	atelierv1 "atelier/common/proto/atelier/v1"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/duty/assign"
)

// TestTranscripts plays testdata/*.txt: a line is what happens, its answer what the
// scheduler wants done, and when. What it gives to the log is carried out at once, in
// a state machine, unless the log is told to hold it. For the form see the package
// transcript. The verbs:
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
	transcript.Run(t, "testdata/*.txt", func(t *testing.T) func([]transcript.Command) string {
		st := newStage()
		t.Cleanup(func() {
			for _, b := range st.broken {
				t.Error(b)
			}
		})
		return func(line []transcript.Command) string {
			st.out.Reset()
			for _, c := range line {
				st.happen(c)
			}
			return st.out.String()
		}
	})
}

func labels(text string) map[string]string {
	m := map[string]string{}
	for _, pair := range strings.Split(text, ",") {
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

func (st *stage) happen(a transcript.Command) {
	args, id := a.Args, a.Word(0)
	sweep, n := trialOf(id)
	event := func(e *atelierv1.RunEvent) {
		ref := st.ref(sweep, n)
		e.SweepId, e.Trial, e.Token = sweep, n, ref.Token
		st.do(&logv1.Command{Op: &logv1.Command_RecordEvents{RecordEvents: &logv1.RecordEvents{Events: []*atelierv1.RunEvent{e}}}})
	}
	control := func(what trial.Action) {
		st.do(&logv1.Command{Op: &logv1.Command_ControlSweep{ControlSweep: &logv1.ControlSweep{Id: id, Action: wire.ToAction(what)}}})
	}
	switch a.Verb {
	case "elect":
		st.elect()
	case "create":
		c := &logv1.CreateSweep{Id: id, Name: id, Objective: wire.ToObjective(trial.Objective{Metric: "loss"}), Seed: 7,
			BudgetTrials: a.Number("trials", 3), Parallelism: a.Number("parallelism", 3), MaxRetries: 2, Trainer: a.Or("trainer", "sim"),
			Priority: int32(a.Number("priority", 0)), CheckpointBytes: a.Number("bytes", 0), StoppingJson: args["stopping"]}
		if key, value, ok := strings.Cut(args["requires"], ":"); ok {
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
		st.do(&logv1.Command{Op: &logv1.Command_PrioritizeSweep{PrioritizeSweep: &logv1.PrioritizeSweep{Id: id, Priority: int32(a.WordNumber(1))}}})
	case "drain", "undrain":
		st.do(&logv1.Command{Op: &logv1.Command_SetDrain{SetDrain: &logv1.SetDrain{Worker: id, Drain: a.Verb == "drain"}}})
	case "ask":
		worker, slot, _ := strings.Cut(id, "/")
		term, _ := time.ParseDuration(args["term"])
		st.ask(assign.Slot{Worker: worker, Name: slot, Incarnation: a.Or("incarnation", "i1"), Request: a.Or("request", fmt.Sprintf("r%d", st.waiter+1)),
			Trainers: strings.Split(a.Or("trainers", "sim"), ","), Labels: labels(args["labels"]), Folder: args["folder"], Sweep: args["sweep"], Term: term})
	case "live":
		st.live = strings.Split(id, ",")
	case "leave":
		st.step(assign.Left{Waiter: uint64(a.WordNumber(0))})
	case "beat":
		h := trial.Heartbeat{Folder: args["folder"], Admitted: slices.Contains(a.Words, "admitted"), Worker: trial.Worker{
			Name: id, Incarnation: a.Or("incarnation", "i1"), Address: id + ":1", Draining: slices.Contains(a.Words, "draining"), Trainers: strings.Split(a.Or("trainers", "sim"), ","), Labels: labels(args["labels"]),
			Slots: []trial.Slot{{Name: "cpu0"}},
		}}
		if sweep, n := trialOf(args["busy"]); n > 0 {
			h.Worker.Slots[0].State, h.Worker.Slots[0].Sweep, h.Worker.Slots[0].Trial = "busy", sweep, n
		}
		for _, l := range strings.Split(args["leases"], ",") {
			if l != "" {
				h.Leases = append(h.Leases, st.ref(trialOf(l)))
			}
		}
		st.step(assign.Heard{Heartbeat: h})
	case "renew":
		st.step(assign.Renewed{Sweep: sweep, Trial: n, Token: st.ref(sweep, n).Token})
	case "report":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Report{Report: &atelierv1.Report{Epoch: int32(a.Number("epoch", 1)), Metrics: []*atelierv1.Metric{{Name: "loss", Value: float64(a.Number("value", 1))}}}}})
	case "checkpoint":
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Checkpoint{Checkpoint: &atelierv1.Checkpoint{
			Epoch: int32(a.Number("epoch", 1)), Location: fmt.Sprintf("file-%s-%s", id, args["epoch"]), Sha256: "00", Size: 10, Worker: args["worker"],
			HasMetric: args["value"] != "", Metric: float64(a.Number("value", 0)),
		}}})
	case "exit":
		class, err := trial.ParseExit(a.Word(1))
		if err != nil {
			a.Fatalf("%v", err)
		}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_Ended{Ended: &atelierv1.RunEnded{Exit: wire.ToExit(class), Message: args["message"]}}})
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
			a.Fatalf("the log does not do that")
		}
	case "wait", "stall":
		d, err := time.ParseDuration(id)
		if err != nil {
			a.Fatalf("%v", err)
		}
		if a.Verb == "wait" {
			st.pass(d)
		} else {
			st.stall(d)
		}
	case "resync":
		st.step(assign.Resynced{})
	case "workers":
		for _, w := range st.s.Workers(st.m.View(), st.now()) {
			text := fmt.Sprintf("%s %s, seen %v ago", w.Name, w.State, st.now().Sub(time.UnixMilli(w.LastSeenMS)))
			if s := w.Slots[0]; s.State != "" {
				text += fmt.Sprintf(", %s with %s/%d", s.State, s.Sweep, s.Trial)
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
		a.Fatalf("no such verb")
	}
}
