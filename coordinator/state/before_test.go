package state_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	logv1 "atelier/common/proto/log/v1"
	"atelier/coordinator/coordinatortest/transcript"
	"atelier/coordinator/state"

	"google.golang.org/protobuf/encoding/protodelim"
)

// TestReadsWhatWasWrittenBefore plays a log from before budgets of epochs, time
// and bytes, findings and sources were recorded, from its start and from a
// snapshot of then in its middle. testdata/before was written by that version.
func TestReadsWhatWasWrittenBefore(t *testing.T) {
	log, err := os.ReadFile("testdata/before/log")
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := os.ReadFile("testdata/before/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/before/end.txt")
	if err != nil {
		t.Fatal(err)
	}
	played, restarted := state.New(), state.New()
	if err := restarted.Restore(bytes.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	from := restarted.View().Index()
	if from == 0 {
		t.Fatal("the snapshot is empty")
	}
	r := bufio.NewReader(bytes.NewReader(log))
	for index := uint64(1); ; index++ {
		var e logv1.Entry
		err := protodelim.UnmarshalFrom(r, &e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		played.Apply(index, &e)
		if index > from {
			restarted.Apply(index, &e)
		}
	}
	for name, m := range map[string]*state.Machine{"from its start": played, "from the snapshot": restarted} {
		var b bytes.Buffer
		for _, s := range m.View().Sweeps() {
			fmt.Fprintf(&b, "%s %v %+v\n", s.ID, s.Status, s.Counts)
			ended := int64(0)
			for tr := range s.Trials(1) {
				fmt.Fprintf(&b, "%d %v %v %g\n", tr.Number, tr.Status, tr.HasValue, tr.Value)
				if _, ok := tr.Known(s.Findings); tr.Ended() && !ok {
					t.Errorf("%s: %s trial %d is %v without a finding", name, s.ID, tr.Number, tr.Status)
				}
				if tr.Ended() {
					ended++
				}
			}
			if s.Findings < ended {
				t.Errorf("%s: %s has %d findings of %d ended trials", name, s.ID, s.Findings, ended)
			}
		}
		if b.String() != string(want) {
			t.Errorf("%s: line %s", name, transcript.Difference(string(want), b.String()))
		}
	}
}
