package trainerproto_test

import (
	"testing"

	"atelier/common/trainerproto"
)

// Reports of a group have its pace, behind the trainer's own metrics, which keep their names.
func TestReported(t *testing.T) {
	own := trainerproto.Metrics{{Name: "val_loss", Value: 1}, {Name: trainerproto.MetricWaiting, Value: 7}}
	e := trainerproto.Event{Metrics: own[:1:2]}
	if got := e.Reported(); len(got) != 1 {
		t.Errorf("of one process: %v", got)
	}
	e.Pace = &trainerproto.Pace{Step: 0.5, Waiting: 0.25}
	if got := e.Reported(); len(got) != 3 || got[1].Value != 0.5 || got[2].Value != 0.25 || own[1].Value != 7 {
		t.Errorf("of a group: %v; the trainer's: %v", got, own)
	}
	e.Metrics = own
	if got := e.Reported(); len(got) != 3 || got[1].Value != 7 || got[2].Name != trainerproto.MetricStep {
		t.Errorf("with a metric of that name: %v", got)
	}
}
