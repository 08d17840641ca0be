// Package infer is what `atelier infer` does: settings from the configuration
// file and the command line, and a trainer that carries them out, on this machine
// or on a cluster's worker. It predicts nothing by itself. DESIGN.md tells how
// a run of inference travels.
package infer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"atelier/common/inference"
	"atelier/common/nearest"
	"atelier/common/setting"
	"atelier/common/trainerproto"
	"atelier/tuner/train"
)

// ConfigFile is where a configuration is looked for when none is named.
const ConfigFile = "conf/inference.yaml"

// EnvironmentPrefix of variables that set keys: ATELIER_INFER_MODE=production.
const EnvironmentPrefix = "ATELIER_INFER_"

// Keys of what the command adds to the settings of inference.
const (
	KeyDevice     = "processing.device"
	KeyThreads    = "processing.threads"
	KeyTracking   = "mlflow.enabled"
	KeyURI        = "mlflow.tracking_uri"
	KeyExperiment = "mlflow.experiment_name"
)

// optional keys may be null although they have a default, or have none.
var optional = []string{"processing.limit", "explain_single_mode.true_class", "paths.output_dir", "paths.image_path", "model.checkpoint"}

// Keys are all settings of `atelier infer`, in the order of the file.
func Keys() []setting.Key {
	b, err := json.Marshal(inference.Default())
	if err != nil {
		panic(err) // plain values only
	}
	var defaults map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&defaults); err != nil {
		panic(err)
	}
	var keys []setting.Key
	for _, name := range inference.Keys() {
		k := setting.Key{Name: name, Default: plain(defaults[name]), Optional: slices.Contains(optional, name), Check: func(v []byte) error {
			if err := inference.Check(name, v); err != nil {
				return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), name+": "))
			}
			return nil
		}}
		if k.Default == "" {
			k.Default = nil
		}
		keys = append(keys, k)
	}
	text := func(want string, ok func(string) bool) func([]byte) error {
		return func(v []byte) error {
			var s string
			if json.Unmarshal(v, &s) != nil || !ok(s) {
				return fmt.Errorf("want %s, got %.60s", want, v)
			}
			return nil
		}
	}
	return append(keys,
		setting.Key{Name: KeyDevice, Default: "auto", Check: text("auto, cpu, or a GPU such as cuda:0", func(s string) bool {
			return s == "auto" || s == "cpu" || s == "cuda" || strings.HasPrefix(s, "cuda:")
		})},
		setting.Key{Name: KeyThreads, Default: int64(0), Check: func(v []byte) error {
			if n, err := strconv.Atoi(string(v)); err != nil || n < 0 || n > 4096 {
				return fmt.Errorf("want a whole number from 0 (all cores) to 4096, got %.60s", v)
			}
			return nil
		}},
		setting.Key{Name: KeyTracking, Default: false, Check: func(v []byte) error {
			if s := string(v); s != "true" && s != "false" {
				return fmt.Errorf("want true or false, got %.60s", v)
			}
			return nil
		}},
		setting.Key{Name: KeyURI, Optional: true, Check: text("an address such as http://127.0.0.1:5000, or a folder", func(s string) bool { return s != "" })},
		setting.Key{Name: KeyExperiment, Optional: true, Check: text("a name", func(s string) bool { return s != "" })})
}

func plain(v any) any {
	switch x := v.(type) {
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
		f, _ := x.Float64()
		return f
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = plain(x[i])
		}
		return out
	}
	return v
}

// New is a configuration of defaults.
func New() *setting.Config { return setting.New(Keys(), nearest.Word) }

// Settings are what a configuration asks of the trainer.
func Settings(c *setting.Config) (inference.Settings, []byte, error) {
	known := inference.Keys()
	doc := c.JSON(func(key string) bool { return slices.Contains(known, key) && c.Get(key).Data != nil })
	s, err := inference.Parse(doc)
	return s, doc, err
}

// Options of a run on this machine.
type Options struct {
	Trainer string // program; see train.FindTrainer
	Dir     string // relative paths start here
	Log     io.Writer
	Warn    func(string)
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
func Local(ctx context.Context, c *setting.Config, o Options) (*inference.Outcome, error) {
	_, doc, err := Settings(c)
	if err != nil {
		return nil, err
	}
	threads, _ := c.Get(KeyThreads).Data.(int64)
	job := trainerproto.Job{Protocol: trainerproto.Version, Training: doc, Params: json.RawMessage("{}"), Device: c.String(KeyDevice), Threads: int(threads), BaseDir: o.Dir, Dir: os.TempDir()}
	last, err := train.RunJob(ctx, o.Trainer, "infer", job, o.Log, o.Warn, func(e trainerproto.Event) error {
		if e.Kind == trainerproto.EventProgress {
			o.Progress(e.Message, e.Step, e.Steps)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out inference.Outcome
	if err := json.Unmarshal([]byte(last.Message), &out); err != nil {
		return nil, fmt.Errorf("the trainer's last word: %w", err)
	}
	return &out, nil
}
