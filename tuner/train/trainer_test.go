package train_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"atelier/common/checkpoint"
	"atelier/common/trainerproto"
)

// TestMain makes this test binary a trainer when it is started as one: the
// protocol with weights that count epochs. FAKE says what goes wrong.
func TestMain(m *testing.M) {
	if fake, ok := os.LookupEnv("FAKE"); ok && len(os.Args) > 1 {
		switch os.Args[1] {
		case "train":
			os.Exit(fakeTrain(fake))
		case "evaluate":
			fmt.Println(`{"images":6,"skipped":0,"loss":0.5,"accuracy":0.5,"classes":[{"name":"gothic","images":4,"correct":3},{"name":"tudor","images":2,"correct":0}]}`)
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

func fakeTrain(fake string) int {
	fault, arg, _ := strings.Cut(fake, "@")
	at, _ := strconv.Atoi(arg)
	if fault == "mute" {
		fmt.Fprintln(os.Stderr, "error while loading shared libraries: libtorch.so")
		return 127
	}
	if fault == "absent" { // whoever is the first to make the file
		if f, err := os.OpenFile(arg, os.O_CREATE|os.O_EXCL, 0o644); err == nil {
			f.Close()
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	out := trainerproto.NewWriter(os.NewFile(trainerproto.EventsFD, "events"))
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	send := func(e trainerproto.Event) {
		if out.Send(e) != nil {
			os.Exit(3)
		}
	}
	groups := trainerproto.GroupVersion
	if fault == "old" {
		groups = 0
	}
	send(trainerproto.Event{Kind: "hello", Protocol: trainerproto.Version, Name: "torch", Message: "pretended", Groups: groups})
	in := trainerproto.NewReader(os.Stdin)
	job, err := in.Job()
	if err != nil {
		return 0
	}
	var s struct {
		Epochs int
		Model  string
	}
	json.Unmarshal(job.Training, &s)
	fmt.Fprintln(os.Stderr, `time=x level=WARN msg="image skipped" file=a.png`)
	if job.SheetsDir != "" && job.Resume == "" {
		os.MkdirAll(job.SheetsDir, 0o755)
		os.WriteFile(filepath.Join(job.SheetsDir, "gothic.png"), nil, 0o644)
	}
	end := func() {}
	if job.Group == nil && fault == "hangs" {
		send(trainerproto.Event{Kind: trainerproto.EventAlive})
	}
	send(trainerproto.Event{Kind: "progress", Message: "packing data.train: 6 of 6 images"})
	if job.Group != nil {
		g, over := joinGroup(job, in, send)
		if over {
			return 0
		}
		end = g.finish
		if job.Group.Member > 1 && fault != "every" {
			fault = "" // the first one's
		}
		if job.ResumeEpoch = g.kept; g.kept > 0 { // what was reported behind it is said again
			job.Resume = filepath.Join(job.Dir, fmt.Sprintf("epoch-%04d-run-%d.pth", g.kept, job.Run))
		}
	}
	weight := float32(job.Seed)
	if job.Resume != "" {
		f, err := checkpoint.OpenState(job.Resume)
		if err != nil {
			send(trainerproto.Event{Kind: "failed", Class: "bad_spec", Message: err.Error()})
			return 1
		}
		v, _ := f.Tensors[0].Float32s()
		weight = v[0]
		f.Close()
	}
	for epoch := job.ResumeEpoch + 1; epoch <= s.Epochs; epoch++ {
		for i := range 4 {
			select {
			case <-ended:
				return 143
			case <-time.After(5 * time.Millisecond):
			}
			send(trainerproto.Event{Kind: "progress", Epoch: epoch, Step: int64((epoch-1)*4 + i + 1), Steps: int64(4 * s.Epochs),
				Metrics: trainerproto.Metrics{{Name: "train_loss", Value: 1}, {Name: "train_acc", Value: 0.25}, {Name: "images_per_s", Value: 100}}})
		}
		if fault != "" && epoch == at {
			switch fault {
			case "between":
			case "hangs":
				syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			case "killed", "every":
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			case "abort":
				fmt.Fprintln(os.Stderr, "terminate called after throwing an instance of 'c10::Error'")
				return 134
			default:
				send(trainerproto.Event{Kind: "failed", Class: fault, Message: "it went wrong in epoch " + arg})
				return 1
			}
		}
		weight = weight*1.5 + float32(epoch)
		loss := math.Abs(float64(epoch)-3) + 0.5 // best in epoch 3
		metrics := trainerproto.Metrics{{Name: "train_loss", Value: 1 / float64(epoch)}, {Name: "train_acc", Value: 0.5}, {Name: "val_loss", Value: loss},
			{Name: "val_acc", Value: 0.5}, {Name: "lr", Value: 0.1}, {Name: "images_per_s", Value: 100}}
		send(trainerproto.Event{Kind: "epoch", Epoch: epoch, Metrics: metrics, Seconds: 0.02})
		if fault == "between" && epoch == at {
			time.Sleep(50 * time.Millisecond) // it is heard
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		path := filepath.Join(job.Dir, fmt.Sprintf("epoch-%04d-run-%d.pth", epoch, job.Run))
		tensor := checkpoint.NewF32([]float32{weight})
		tensor.Name = "fc.weight"
		_, err := checkpoint.Save(path, checkpoint.NewDict().Set("epoch", epoch).Set("arch", s.Model).
			Set("model_state_dict", checkpoint.FromStateDict([]checkpoint.Tensor{*tensor})).
			Set("class_to_idx", checkpoint.NewDict().Set("gothic", 0).Set("tudor", 1)).
			Set("config", checkpoint.NewDict().Set("epochs", s.Epochs).Set("model", s.Model).Set("image_size", 32).Set("lr", 0.1).Set("dropout_rate", -1).Set("weights", "")).
			Set("atelier", checkpoint.NewDict().Set("seed", strconv.FormatUint(job.Seed, 10)).Set("threads", 1)))
		if err != nil {
			send(trainerproto.Event{Kind: "failed", Class: "disk_full", Message: err.Error()})
			return 1
		}
		send(trainerproto.Event{Kind: "checkpoint", Epoch: epoch, Path: path, Metrics: metrics})
	}
	end()
	send(trainerproto.Event{Kind: "done", Reason: "finished", Message: fmt.Sprintf("%d epochs", s.Epochs)})
	return 0
}
