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
	"atelier/common/spec"
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
//	create S members=MIN-MAX             of groups; and what every sweep may have:
//	         trials=3 parallelism=3 trainer=sim priority=0 requires=k:v bytes=0 stopping={}
//	pause|resume|cancel S; priority S N; drain|undrain WORKER
//	ask WORKER/SLOT request= incarnation=i1 trainers=sim groups=sim labels=k:v folder= sweep= term=
//	leave N                              waiter N's time is over
//	beat WORKER incarnation=i1 slots=cpu0,cpu1 groups=sim leases=S/N,S/N#MEMBER folder= busy=S/N admitted draining trainers=sim labels=k:v
//	live WORKER,WORKER                   each is heard of once a second from now on, with all its leases
//	report|checkpoint S/N epoch=1 value=1; exit S/N CLASS message=; stop S/N; renew S/N
//	gone S/N#MEMBER CLASS message=       a member's part ended; all of S/N above may name a member, too
//	view S/N#MEMBER number=1 members=1,2; silent S/N#MEMBER   live workers name it no longer
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
	text, _, _ = strings.Cut(text, "#")
	sweep, number, _ := strings.Cut(text, "/")
	n, _ = strconv.ParseInt(number, 10, 64)
	return sweep, n
}

// memberOf is ID of S/N#ID.
func memberOf(text string) int32 {
	_, id, _ := strings.Cut(text, "#")
	n, _ := strconv.ParseInt(id, 10, 32)
	return int32(n)
}

func (st *stage) happen(a transcript.Command) {
	args, id := a.Args, a.Word(0)
	sweep, n := trialOf(id)
	member := memberOf(id)
	event := func(e *atelierv1.RunEvent) {
		ref := st.ref(id)
		e.SweepId, e.Trial, e.Token, e.Member = sweep, n, ref.Token, member
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
		if text, ok := args["members"]; ok {
			sp := &spec.Spec{Name: id, Parallelism: c.Parallelism, MaxRetries: c.MaxRetries, Trainer: c.Trainer, Priority: c.Priority, Seed: 7, Shards: 8,
				Objectives: []trial.Objective{{Metric: "loss"}}, Budget: spec.Budget{Trials: c.BudgetTrials}}
			if _, err := fmt.Sscanf(text, "%d-%d", &sp.Members.Min, &sp.Members.Max); err != nil {
				a.Fatalf("%v", err)
			}
			for _, r := range c.Requires {
				sp.Requires = append(sp.Requires, spec.Label{Key: r.Key, Value: r.Value})
			}
			c.SpecJson = spec.Encode(sp)
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
			Trainers: strings.Split(a.Or("trainers", "sim"), ","), GroupTrainers: strings.Split(a.Or("groups", a.Or("trainers", "sim")), ","), Labels: labels(args["labels"]), Folder: args["folder"], Sweep: args["sweep"], Term: term})
	case "live":
		st.live = strings.Split(id, ",")
	case "leave":
		st.step(assign.Left{Waiter: uint64(a.WordNumber(0))})
	case "beat":
		h := trial.Heartbeat{Folder: args["folder"], Admitted: slices.Contains(a.Words, "admitted"), Worker: trial.Worker{
			Name: id, Incarnation: a.Or("incarnation", "i1"), Address: id + ":1", Draining: slices.Contains(a.Words, "draining"), Trainers: strings.Split(a.Or("trainers", "sim"), ","), GroupTrainers: strings.Split(a.Or("groups", a.Or("trainers", "sim")), ","), Labels: labels(args["labels"]),
		}}
		for _, name := range strings.Split(a.Or("slots", "cpu0"), ",") {
			h.Worker.Slots = append(h.Worker.Slots, trial.Slot{Name: name, Kind: strings.TrimRight(name, "0123456789")})
		}
		st.told[id] = h.Worker
		if sweep, n := trialOf(args["busy"]); n > 0 {
			h.Worker.Slots[0].State, h.Worker.Slots[0].Sweep, h.Worker.Slots[0].Trial = "busy", sweep, n
		}
		for _, l := range strings.Split(args["leases"], ",") {
			if l != "" {
				h.Leases = append(h.Leases, st.ref(l))
			}
		}
		st.step(assign.Heard{Heartbeat: h})
	case "renew":
		st.step(assign.Renewed{Sweep: sweep, Trial: n, Token: st.ref(id).Token})
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
	case "gone":
		class, err := trial.ParseExit(a.Word(1))
		if err != nil {
			a.Fatalf("%v", err)
		}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_MemberEnded{MemberEnded: &atelierv1.MemberEnded{Exit: wire.ToExit(class), Message: args["message"]}}})
	case "view":
		v := &atelierv1.GroupView{Number: int32(a.Number("number", 1)), Reason: "start"}
		for _, text := range strings.Split(args["members"], ",") {
			v.Members = append(v.Members, memberOf("#"+text))
		}
		event(&atelierv1.RunEvent{Event: &atelierv1.RunEvent_View{View: v}})
	case "silent":
		st.silent = append(st.silent, id)
	case "stop":
		st.do(&logv1.Command{Op: &logv1.Command_SetVerdict{SetVerdict: &logv1.SetVerdict{Id: sweep, Trial: n, Token: st.ref(id).Token, Verdict: wire.ToVerdict(trial.VerdictStop), Reason: "told to"}}})
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
