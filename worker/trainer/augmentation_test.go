//go:build libtorch

package main_test

import (
	"bytes"
	"syscall"
	"testing"
	"time"

	"atelier/common/trainerproto"
)

// With every kind of augmentation and balanced draws, a killed and resumed run
// ends with the bits of one left alone, and the classes are learnt.
func TestKilledRunResumesBitExactlyWithAllAugmentation(t *testing.T) {
	base := imageFolder(t, 30, 6)
	training := map[string]any{"epochs": 4, "optimizer": "adam", "lr": 0.003, "sampling": "balanced",
		"augmentation": map[string]any{"crop": "resized", "crop_scale_min": 0.4, "rotation": 20, "cutmix": map[string]any{"enabled": true, "alpha": 0.8},
			"jitter": map[string]any{"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}}}
	whole := newJob(t, base, training)
	events := finish(t, whole)
	kept := of(events, trainerproto.EventCheckpoint)
	want := state(t, kept[len(kept)-1].Path)
	first, _ := of(events, trainerproto.EventEpoch)[0].Metrics.Get("val_loss")
	final, _ := of(events, trainerproto.EventEpoch)[3].Metrics.Get("val_loss")
	if !(final < first) {
		t.Errorf("validation loss from %g to %g", first, final)
	}

	cut := newJob(t, base, training)
	p := start(t)
	p.send(cut)
	seen := p.until(func(e trainerproto.Event) bool { return e.Kind == trainerproto.EventCheckpoint && e.Epoch == 2 })
	time.Sleep(30 * time.Millisecond) // into epoch 3
	p.cmd.Process.Signal(syscall.SIGKILL)
	p.cmd.Wait()
	at := seen[len(seen)-1]
	cut.Run, cut.Resume, cut.ResumeEpoch = 2, at.Path, at.Epoch
	kept = of(finish(t, cut), trainerproto.EventCheckpoint)
	got := state(t, kept[len(kept)-1].Path)
	if len(kept) != 2 || len(got) != len(want) || len(want) < 10 {
		t.Fatalf("%d epochs after resuming, %d tensors; uninterrupted %d", len(kept), len(got), len(want))
	}
	for name, b := range want {
		if !bytes.Equal(got[name], b) {
			t.Errorf("%s differs", name)
		}
	}

	// Without augmentation the same seed ends elsewhere: the settings reach the images.
	plain := newJob(t, base, map[string]any{"epochs": 4, "optimizer": "adam", "lr": 0.003, "sampling": "balanced", "augment": false})
	kept = of(finish(t, plain), trainerproto.EventCheckpoint)
	if bytes.Equal(state(t, kept[3].Path)[".model_state_dict.features.0.weight"], want[".model_state_dict.features.0.weight"]) {
		t.Error("augmentation changed nothing")
	}
}
