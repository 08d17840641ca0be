package wire_test

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// table holds a noun against its enum: the same numbers, the same words, nothing
// that one of them lacks, and back again.
func table[N interface {
	~int32
	fmt.Stringer
}, E interface {
	~int32
	protoreflect.Enum
}](t *testing.T, prefix string, from func(E) N, to func(N) E, parse func(string) (N, error)) {
	values := E(0).Descriptor().Values()
	for i := range values.Len() {
		v := values.Get(i)
		n, want := from(E(v.Number())), strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
		if v.Number() == 0 {
			want = ""
		}
		if int32(n) != int32(v.Number()) || n.String() != want || to(n) != E(v.Number()) {
			t.Errorf("%s is %d, %q, and back %d; want %d, %q", v.Name(), n, n, to(n), v.Number(), want)
		}
		if want == "" || parse == nil {
			continue
		}
		if got, err := parse(want); err != nil || got != n {
			t.Errorf("parse %q: %d, %v", want, got, err)
		}
		text, err := any(n).(encoding.TextMarshaler).MarshalText()
		if err != nil || string(text) != want {
			t.Errorf("%s as text: %q, %v", v.Name(), text, err)
		}
	}
	for n := range N(64) {
		known := values.ByNumber(protoreflect.EnumNumber(n)) != nil
		if named := n.String() != fmt.Sprint(int32(n)) && n != 0; named != (known && n != 0) {
			t.Errorf("%T %d is %q: the schema knows it: %v", n, n, n, known)
		}
	}
}

func TestTable(t *testing.T) {
	table(t, "TRIAL_STATUS_", wire.Status, wire.ToStatus, trial.ParseStatus)
	table(t, "SWEEP_STATUS_", wire.SweepStatus, wire.ToSweepStatus, trial.ParseSweepStatus)
	table(t, "EXIT_CLASS_", wire.Exit, wire.ToExit, trial.ParseExit)
	table(t, "VERDICT_", wire.Verdict, wire.ToVerdict, trial.ParseVerdict)
	table(t, "OUTCOME_", wire.Outcome, wire.ToOutcome, trial.ParseOutcome)
	table(t, "PROPOSAL_SOURCE_", wire.Source, wire.ToSource, trial.ParseSource)
	table(t, "SWEEP_ACTION_", wire.Action, wire.ToAction, nil)
	// The constants stand for what they say.
	for noun, enum := range map[fmt.Stringer]fmt.Stringer{
		trial.Cancelled: atelierv1.TrialStatus_TRIAL_STATUS_CANCELLED, trial.SweepFailed: atelierv1.SweepStatus_SWEEP_STATUS_FAILED,
		trial.ExitLost: atelierv1.ExitClass_EXIT_CLASS_LOST, trial.ExitRestored: atelierv1.ExitClass_EXIT_CLASS_RESTORED,
		trial.ExitDataMissing: atelierv1.ExitClass_EXIT_CLASS_DATA_MISSING, trial.VerdictStop: atelierv1.Verdict_VERDICT_STOP,
		trial.OutcomeRefused: atelierv1.Outcome_OUTCOME_REFUSED, trial.SourcePopulation: atelierv1.ProposalSource_PROPOSAL_SOURCE_POPULATION,
		trial.ActionCancel: atelierv1.SweepAction_SWEEP_ACTION_CANCEL, trial.ExitOutOfMemory: atelierv1.ExitClass_EXIT_CLASS_OUT_OF_MEMORY,
	} {
		if reflect.ValueOf(noun).Int() != reflect.ValueOf(enum).Int() {
			t.Errorf("%T %s is %d, %s is %d", noun, noun, noun, enum, enum)
		}
	}
}

func TestMessages(t *testing.T) {
	for _, maximize := range []bool{false, true} {
		o := trial.Objective{Metric: "val_acc", Maximize: maximize}
		if p := wire.ToObjective(o); wire.Objective(p) != o || !wire.Directed(p) {
			t.Errorf("%v came back as %v", o, wire.Objective(p))
		}
	}
	if wire.Directed(nil) || wire.Directed(&atelierv1.Objective{Metric: "x", Direction: 9}) {
		t.Error("no direction, or one that nobody knows")
	}
	c := trial.Constraint{Metric: "ms", HasMax: true, Max: 20, HasMin: true, Min: -1}
	if wire.Constraint(wire.ToConstraint(c)) != c {
		t.Errorf("%v came back as %v", c, wire.Constraint(wire.ToConstraint(c)))
	}
	if o := (trial.Origin{Trial: 3, Epoch: 4}); wire.Origin(wire.ToOrigin(o)) != o || wire.ToOrigin(trial.Origin{}) != nil {
		t.Error("origins")
	}
}
