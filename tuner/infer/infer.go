// Package infer is what `atelier infer` does: settings from the configuration
// file and the command line, and a trainer that carries them out, on this machine
// or on a cluster's worker. It predicts nothing by itself. DESIGN.md tells how
// a run of inference travels.
package infer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"atelier/common/inference"
	"atelier/common/setting"
	"atelier/common/trainerproto"
	"atelier/tuner/track"
	"atelier/tuner/train"
)

// Keys of what the command adds to the settings of inference.
const (
	KeyDevice  = "processing.device"
	KeyThreads = "processing.threads"
)

// Document declares what `atelier infer` may be told: the settings of
// inference, and the command's own.
var Document = setting.Document{
	Command: "infer", File: "conf/inference.yaml", Prefix: "ATELIER_INFER_", Such: "gradcam.top_k=3",
	Flags: "--mode production, --set gradcam.top_k=3", Variable: "ATELIER_INFER_MODE=production",
	Table: inference.Table.With(
		setting.Setting{Name: KeyDevice, Section: "Processing", Type: train.Device(), Default: "auto", Help: "auto = the first GPU, else the CPU; a cluster's worker takes its slot's",
			Flag: "device", Usage: "`DEVICE`: auto, cpu, cuda:0"},
		setting.Setting{Name: KeyThreads, Section: "Processing", Type: train.Threads(), Default: int64(0), Help: "0 = all cores; a cluster's worker takes its slot's"},
	).With(track.Settings("this run", false, "true: asked on a terminal, unless --mlflow or --no-mlflow is given", nil,
		"null = "+track.EvaluationExperiment+", or -explainability, by mode")...),
}

// New is a configuration of defaults.
func New() *setting.Config { return setting.New(Document.Table) }

// Settings are what a configuration asks of the trainer.
func Settings(c *setting.Config) (inference.Settings, []byte, error) {
	doc := c.JSON(inference.Table.Has)
	s, err := inference.Parse(doc)
	return s, doc, err
}

// Options of a run on this machine.
type Options struct {
	Trainer string // program; see train.FindTrainer
	Dir     string // relative paths start here
	Log     io.Writer
	Warn    func(string)
	Skipped func(string) // a warning of an image that is left out
	// Progress is called as images are done.
	Progress func(what string, done, total int64)
	// Say is told what happens besides; may be nil.
	Say func(string)
}

func (o Options) say(format string, a ...any) {
	if o.Say != nil {
		o.Say(fmt.Sprintf(format, a...))
	}
}

// Local carries a configuration out on this machine.
func Local(ctx context.Context, c *setting.Config, o Options) (*inference.Summary, error) {
	_, doc, err := Settings(c)
	if err != nil {
		return nil, err
	}
	threads, _ := c.Get(KeyThreads).Data.(int64)
	job := trainerproto.Job{Protocol: trainerproto.Version, Training: doc, Params: json.RawMessage("{}"), Device: c.String(KeyDevice), Threads: int(threads), BaseDir: o.Dir, Dir: os.TempDir()}
	last, err := train.Call{Trainer: o.Trainer, Verb: "infer", Job: job, Log: o.Log, Warn: o.Warn, Skipped: o.Skipped, On: func(e trainerproto.Event) error {
		if e.Kind == trainerproto.EventProgress {
			o.Progress(e.Message, e.Step, e.Steps)
		}
		return nil
	}}.Run(ctx)
	if err != nil {
		return nil, err
	}
	var out inference.Summary
	if err := json.Unmarshal([]byte(last.Message), &out); err != nil {
		return nil, fmt.Errorf("the trainer's last word: %w", err)
	}
	return &out, nil
}
