package settings_test

import (
	"encoding/json"
	"strings"
	"testing"

	"atelier/common/setting"
	"atelier/common/settings"
)

const folders = `"data":{"train":"t","validation":"/v"}`

func TestParamsOverrideTraining(t *testing.T) {
	s, err := settings.Parse([]byte(`{"model":"vanilla","lr":0.5,"epochs":3,`+folders+`}`), []byte(`{"lr":1e-3,"batch_size":16.0}`), "/base")
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Default()
	want.Model, want.LR, want.Epochs, want.BatchSize, want.Train, want.Validation = "vanilla", 1e-3, 3, 16, "/base/t", "/v"
	want.Momentum = 0 // of adam
	want.Shards = 1
	if s != want {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

// Objects, dotted keys and the optimiser's own momentum.
func TestKeysInsideObjects(t *testing.T) {
	s, err := settings.Parse([]byte(`{"optimizer":"sgd","weights":"w.pth","augmentation":{"crop":"resized","jitter":{"hue":0.1},"cutmix":{"enabled":true}},`+folders+`}`),
		[]byte(`{"augmentation.cutmix.alpha":0.4,"accumulate":4}`), "/base")
	if err != nil {
		t.Fatal(err)
	}
	if s.Crop != "resized" || s.JitterHue != 0.1 || !s.CutMix || s.CutMixAlpha != 0.4 || !s.Flip || s.Accumulate != 4 || s.Weights != "/base/w.pth" || s.Momentum != 0.9 {
		t.Errorf("got %+v", s)
	}
	if s, err = settings.Parse([]byte(`{"optimizer":"rmsprop",`+folders+`}`), nil, "/"); err != nil || s.Momentum != 0 {
		t.Errorf("rmsprop without a momentum: %v %v", s.Momentum, err)
	}
}

func TestCheck(t *testing.T) {
	for key, v := range map[string]string{"lr": "0.1", "model": `"vgg11"`, "normalization.std": "[0.1,0.2,0.3]", "augment": "false"} {
		if err := settings.Table.Check(key, setting.Plain([]byte(v))); err != nil {
			t.Errorf("%s %s: %v", key, v, err)
		}
	}
	for key, want := range map[string]string{"lr": "want a number above 0", "model": "no model", "nosuch": `unknown key; did you mean`, "epochs": "want a whole number"} {
		if err := settings.Table.Check(key, "0x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", key, err, want)
		}
	}
}

// What Default says is what a key left out means.
func TestDefaultsAreValid(t *testing.T) {
	s, err := settings.Parse([]byte(`{`+folders+`}`), nil, "/base")
	if err != nil || s.Model != "resnet18" || s.Mean != [3]float64{0.485, 0.456, 0.406} {
		t.Errorf("%v %+v", err, s)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, training, params, want string }{
		{"unknown key", `{"batchsize":3,` + folders + `}`, ``, `training: unknown key "batchsize"; did you mean "batch_size"?`},
		{"spoken name", `{` + folders + `}`, `{"learning_rate":0.1}`, `params: unknown key "learning_rate"; did you mean "lr"?`},
		{"unknown data key", `{"data":{"train":"t","validation":"v","vaild":"w"}}`, ``, `unknown key "data.vaild"; did you mean "data.validation"?`},
		{"missing data", `{}`, ``, `data.train is missing`},
		{"text for number", `{"epochs":"ten",` + folders + `}`, ``, `training: epochs: want a whole number from 1 to 100000, got "ten"`},
		{"fraction", `{"epochs":1.5,` + folders + `}`, ``, `want a whole number`},
		{"zero batch", `{"batch_size":0,` + folders + `}`, ``, `batch_size: want a whole number from 1`},
		{"negative lr", `{"lr":-1,` + folders + `}`, ``, `lr: want a number above 0`},
		{"null lr", `{"lr":null,` + folders + `}`, ``, `lr: want a number`},
		{"momentum one", `{"momentum":1,` + folders + `}`, ``, `momentum: want a number from 0 to below 1`},
		{"optimizer", `{"optimizer":"sdg",` + folders + `}`, ``, `want one of sgd, adam, adamw, rmsprop, got "sdg"`},
		{"schedule", `{"scheduler":"cosine",` + folders + `}`, ``, `did you mean "schedule"?`},
		{"smoothing", `{"label_smoothing":1.5,` + folders + `}`, ``, `label_smoothing: want a number from 0 to 1, got 1.5`},
		{"decay one", `{"ema_decay":1,` + folders + `}`, ``, `ema_decay: want a number from 0 to below 1`},
		{"no batch", `{"accumulate":0,` + folders + `}`, ``, `accumulate: want a whole number from 1`},
		{"floor above lr", `{"min_lr":0.1,` + folders + `}`, `{"lr":0.01}`, `min_lr 0.1 is above lr 0.01`},
		{"all warm-up", `{"epochs":2,"warmup_epochs":2.0,` + folders + `}`, ``, `warmup_epochs 2 leaves none of 2 epochs`},
		{"nesterov alone", `{"optimizer":"sgd","nesterov":true,"momentum":0,` + folders + `}`, ``, `nesterov needs a momentum`},
		{"inside an object", `{"augmentation":{"cutmix":{"alpha":0}},` + folders + `}`, ``, `augmentation.cutmix.alpha: want a number above 0`},
		{"unknown inside", `{"augmentation":{"jitter":{"brightnes":0.1}},` + folders + `}`, ``, `did you mean "augmentation.jitter.brightness"?`},
		{"object for a value", `{"augmentation":true,` + folders + `}`, ``, `want a JSON object`},
		{"augment", `{"augment":"yes",` + folders + `}`, ``, `want true or false`},
		{"twice", `{"lr":1,"lr":2,` + folders + `}`, ``, `lr appears twice`},
		{"not an object", `[1]`, ``, `want a JSON object`},
		{"cut off", `{"lr":1`, ``, `training:`},
		{"unknown model", `{"model":"resnet81",` + folders + `}`, ``, `training: model: no model "resnet81"; did you mean "resnet18"?`},
		{"short list", `{"normalization":{"mean":[0.5,0.5]},` + folders + `}`, ``, `normalization.mean: want three numbers from 0 to 1`},
		{"zero deviation", `{"normalization":{"std":[0.5,0.5,0]},` + folders + `}`, ``, `normalization.std: want three numbers above 0`},
		{"statistics of their own", `{"normalize":"imagenet","normalization":{"std":[0.5,0.5,0.5]},` + folders + `}`, ``, `normalize imagenet`},
		{"members above shards", `{"members":8,"shards":4,` + folders + `}`, ``, `8 members cannot share 4 shards`},
		{"uneven shards", `{"members":3,"batch_size":30,` + folders + `}`, ``, `a batch_size of 30 does not divide into 4 shards: take 28 or 32`},
		{"min above max", `{"members":{"min":4,"max":2},` + folders + `}`, ``, `members.min 4 is above members.max 2`},
		{"members twice", `{"members":4,"members.min":2,` + folders + `}`, ``, `members.min appears twice`},
		{"no member", `{"members":0,` + folders + `}`, ``, `want a whole number from 1 to 256`},
		{"unknown of members", `{"members":{"least":1},` + folders + `}`, ``, `unknown key "members.least"`},
		{"data not an object", `{"data":"folder"}`, ``, `want a JSON object`},
	} {
		_, err := settings.Parse([]byte(c.training), []byte(c.params), "/b")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.want)
		}
	}
	if _, err := settings.Parse([]byte(`{"members":{"min":4,"max":2},`+folders+`}`), nil, "/b"); strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("one fault, more told:\n%v", err)
	}
	_, err := settings.Parse([]byte(`{"lr":-1,"epochs":0,"modle":"x"}`), nil, "/b")
	if n := len(strings.Split(err.Error(), "\n")); n != 5 {
		t.Errorf("five faults, %d told:\n%v", n, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"lr":0.1,`+folders+`}`), []byte(`{"epochs":2}`))
	f.Add([]byte(`{"data":{"data":{}}}`), []byte(``))
	f.Fuzz(func(t *testing.T, training, params []byte) {
		s, err := settings.Parse(training, params, "/b")
		if err == nil && (s.Epochs < 1 || s.BatchSize < 1 || !(s.LR > 0) || s.Train == "" || s.Validation == "") {
			t.Errorf("accepted %+v", s)
		}
	})
}

// A choice of kernels is checked by name, and settings without one read as
// they did before there was the key.
func TestKernels(t *testing.T) {
	s, err := settings.Parse([]byte(`{"kernels":"-dense,-norm",`+folders+`}`), []byte(`{"kernels":"none"}`), "/")
	if err != nil || s.Kernels != "none" {
		t.Errorf("%q, %v", s.Kernels, err)
	}
	for _, wrong := range []string{`"fast"`, `""`, `true`, `["norm"]`} {
		if err := settings.Table.Check("kernels", setting.Plain([]byte(wrong))); err == nil {
			t.Errorf("%s was taken", wrong)
		}
	}
	text, err := json.Marshal(settings.Default())
	if err != nil || strings.Contains(string(text), "kernels") {
		t.Errorf("%s, %v", text, err)
	}
}

// Members are a number or an object, and shards follow from them.
func TestMembers(t *testing.T) {
	for text, want := range map[string][4]int{ // least, most, shards, threads of a shard
		``:                                        {1, 1, 1, 0},
		`"members":4,`:                            {4, 4, 4, 1},
		`"members":3,`:                            {3, 3, 4, 1},
		`"members":{"min":1,"max":8},`:            {1, 8, 8, 1},
		`"members":{"min":2},`:                    {2, 2, 2, 1},
		`"members.min":2,"members.max":5,`:        {2, 5, 8, 1},
		`"members":{"max":3},"shards":16,`:        {1, 3, 16, 1},
		`"shards":8,"shard_threads":2,`:           {1, 1, 8, 2},
		`"members":1,"shard_threads":3,`:          {1, 1, 1, 3},
		`"members":{},"shards":1,`:                {1, 1, 1, 0},
		`"members":6,"shards":6,"batch_size":12,`: {6, 6, 6, 1},
	} {
		s, err := settings.Parse([]byte(`{`+text+folders+`}`), nil, "/")
		least, most := s.Members()
		if got := [4]int{least, most, s.Shards, s.ShardThreads}; err != nil || got != want {
			t.Errorf("%s: %v, want %v (%v)", text, got, want, err)
		}
		// A coordinator reads the same without knowing the trainer.
		g, err := settings.GroupOf([]byte(`{` + text + `"of":"another trainer"}`))
		if err != nil || g != (settings.Group{Min: want[0], Max: want[1], Shards: want[2]}) {
			t.Errorf("%s: group %+v, %v", text, g, err)
		}
	}
	if _, err := settings.GroupOf([]byte(`{"members":{"min":4,"max":2},"lr":"fast"}`)); err == nil || !strings.Contains(err.Error(), "members.min 4 is above") {
		t.Errorf("got %v", err)
	}
}
