package cli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"atelier/common/settings"
	"atelier/common/space"
	"atelier/common/trial"
	"atelier/tuner/tune/report"
)

// atLength is the command of a report's summary that trains its best trial, as a shell splits it.
func atLength(t *testing.T, s *report.Sweep) (line string, args []string) {
	t.Helper()
	dir := t.TempDir()
	if _, err := report.Write(dir, s, report.Options{NoPlots: true}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, report.SummaryFile))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "Train it at length:\n")
	line, _, _ = strings.Cut(strings.TrimSpace(rest), "\n")
	out, err := exec.Command("sh", "-c", `printf '%s\n' `+line).Output()
	if err != nil {
		t.Fatal(line, err)
	}
	words := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(words) < 2 || words[0] != "atelier" || words[1] != "train" {
		t.Fatalf("no command in %q", line)
	}
	return line, words[1:]
}

// The command of the summary trains what was tuned, only longer: every fixed setting, the images and the parameters.
func TestTheCommandAtLengthTrainsWhatWasTuned(t *testing.T) {
	job := pretender(t)
	dir := t.TempDir()
	data := filepath.Join(dir, "the styles")
	for _, part := range []string{"train", "validation"} {
		classFolders(t, filepath.Join(data, part), 3)
	}
	classFolders(t, filepath.Join(dir, "held out"), 3)
	// A file beside the data has other values than the tuning was given.
	conf := filepath.Join(dir, "conf/training_config.yaml")
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("gamma: 0.5\nbatch_size: 128\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sp := space.Space{Params: []space.Parameter{
		{Name: "lr", Kind: space.KindFloat, Low: 1e-4, High: 1e-1, Log: true},
		{Name: "batch_size", Kind: space.KindCategorical, Choices: []space.Value{space.Int(4), space.Int(8)}},
		{Name: "optimizer", Kind: space.KindCategorical, Choices: []space.Value{space.String("adam"), space.String("sgd")}},
		{Name: "momentum", Kind: space.KindFloat, Low: 0.5, High: 0.99, When: []space.Condition{{Parent: "optimizer", Any: []space.Value{space.String("sgd")}}}},
		{Name: "augmentation.cutmix.enabled", Kind: space.KindCategorical, Choices: []space.Value{space.Bool(false), space.Bool(true)}},
	}}
	fixed := `"image_size":48,"schedule":"cosine","gamma":0.1,"augmentation":{"flip":false,"jitter":{"hue":0.125}},"normalization.mean":[0.5,0.25,0.125],"patience":7,"label_smoothing":0.1,"epochs":2`
	for name, c := range map[string]struct {
		training, train, validation string
		want                        []string
		without                     string
	}{
		"one folder":             {`{"model":"vanilla","data":{"train":"the styles/train","validation":"the styles/validation"},` + fixed + `}`, "", "", []string{"--data 'the styles'", "--epochs 50"}, "--train"},
		"a part of it":           {`{"model":"vanilla","data":{"train":"x/subset/train","validation":"x/subset/validation"},` + fixed + `}`, "the styles/train", "the styles/validation", []string{"--data 'the styles'"}, "subset"},
		"folders here and there": {`{"model":"vanilla","data.train":"the styles/train","data.validation":"held out","data.test":"held out",` + fixed + `}`, "", "", []string{"--train 'the styles/train'", "--validation 'held out'", "--test 'held out'"}, "--data"},
		"a seed, keys with dots": {`{"model":"vanilla","seed":7,"data.train":"the styles/train","data.validation":"the styles/validation","augmentation.rotation":12.5,` + fixed + `}`, "", "", []string{"--seed 7", "--set augmentation.rotation=12.5"}, "--train"},
	} {
		for _, u := range [][]float64{{0.3, 0.1, 0.1, 0.5, 0.1}, {0.6, 0.9, 0.9, 0.7, 0.9}} {
			s := &report.Sweep{ID: "s-k3v9q2ma", Model: "vanilla", SearchMethod: "random", Trainer: "torch", Metric: "val_loss", Status: trial.SweepFinished, Space: sp, Training: json.RawMessage(c.training), Data: c.train, Validation: c.validation}
			best := report.Trial{Number: 1, Status: trial.Finished, Point: sp.FromUnit(u), HasValue: true, Value: 0.5, ValueEpoch: 2, Epochs: 2}
			s.Trials = []report.Trial{best}
			line, args := atLength(t, s)
			for _, w := range c.want {
				if !strings.Contains(line, w) {
					t.Errorf("%s: no %q in %s", name, w, line)
				}
			}
			if strings.Contains(line, c.without) {
				t.Errorf("%s: %q in %s", name, c.without, line)
			}
			if r := talk(t, dir, false, "", nil, append(args, "--no-mlflow", "--overwrite")...); !strings.Contains(r.err, "enough seen") {
				t.Fatalf("%s: %s: %+v", name, line, r)
			}
			got, err := json.Marshal(job())
			if err != nil {
				t.Fatal(err)
			}
			longer, err := settings.Parse(got, nil, dir)
			if err != nil {
				t.Fatal(err)
			}
			tuned, err := settings.Parse([]byte(c.training), []byte(sp.Encode(best.Point)), dir)
			if err != nil {
				t.Fatal(err)
			}
			if c.train != "" {
				tuned.Train, tuned.Validation = filepath.Join(dir, c.train), filepath.Join(dir, c.validation)
			}
			if longer.Epochs <= tuned.Epochs {
				t.Errorf("%s: %d epochs", name, longer.Epochs)
			}
			longer.Epochs = tuned.Epochs
			if !strings.Contains(c.training, `"seed"`) {
				longer.Seed = tuned.Seed
			}
			if !reflect.DeepEqual(longer, tuned) {
				t.Errorf("%s: %s\ntrains %+v\ntuned  %+v", name, line, longer, tuned)
			}
		}
	}
	// Of a sweep that was submitted elsewhere the paths are whole.
	away := &report.Sweep{ID: "s-k3v9q2ma", Model: "vanilla", Trainer: "torch", Metric: "val_loss", Status: trial.SweepFinished, Space: sp, Base: "/srv/images",
		Training: json.RawMessage(`{"model":"vanilla","data":{"train":"styles/train","validation":"styles/validation"},"weights":"start.pth","epochs":2}`),
		Trials:   []report.Trial{{Number: 1, Status: trial.Finished, Point: sp.FromUnit([]float64{0, 0, 0, 0, 0}), HasValue: true}}}
	if line, _ := atLength(t, away); !strings.Contains(line, "--data /srv/images/styles --weights /srv/images/start.pth") {
		t.Errorf("submitted elsewhere: %s", line)
	}
	s := &report.Sweep{ID: "s-k3v9q2ma", Model: "resnet18", Trainer: "torch", Metric: "val_loss", Status: trial.SweepFinished, Space: sp,
		Training: json.RawMessage(`{"model":"resnet18","weights":"it's mine.pth","freeze_features":true,"epochs":40}`),
		Trials:   []report.Trial{{Number: 1, Status: trial.Finished, Point: sp.FromUnit([]float64{0, 0, 0, 0, 0}), HasValue: true}}}
	line, args := atLength(t, s)
	for _, w := range []string{`--weights 'it'\''s mine.pth'`, "freeze_features=true", "--epochs 80"} {
		if !strings.Contains(line, w) {
			t.Errorf("no %s in %s (%q)", w, line, args)
		}
	}
}
