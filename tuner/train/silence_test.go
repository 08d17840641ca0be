package train_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"atelier/common/trainerproto"
	"atelier/tuner/session"
	"atelier/tuner/train"
)

// A single trainer that is stopped, or hangs, is ended once it was silent for long.
func TestSilentTrainerIsEnded(t *testing.T) {
	t.Setenv("FAKE", "hangs@2")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	epochs := 0
	c := train.Call{Trainer: self, Verb: "train", Silence: 500 * time.Millisecond,
		Job: trainerproto.Job{Protocol: trainerproto.Version, Training: []byte(`{"epochs":3,"model":"vanilla"}`), Params: []byte("{}"), Dir: t.TempDir()},
		On: func(e trainerproto.Event) error {
			if e.Kind == trainerproto.EventAlive {
				t.Error("a sign of life is passed on")
			}
			if e.Kind == trainerproto.EventEpoch {
				epochs++
			}
			return nil
		}}
	_, err = c.Run(t.Context())
	if f, ok := errors.AsType[*session.Failure](err); !ok || f.Class != trainerproto.FailedCrashed || f.Message != "the trainer gave no sign of life for 500ms (stopped by a signal, or hung) and was ended" || epochs == 0 {
		t.Errorf("%v after %d epochs", err, epochs)
	}
}
