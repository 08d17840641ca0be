package setting_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"atelier/common/secret"
	"atelier/common/setting"
)

func fresh() *setting.Config {
	model := setting.Is("a text", func(v any) bool { s, ok := v.(string); return ok && s != "bad" })
	model.Text = true
	return setting.New(setting.Table{
		{Name: "model", Default: "resnet18", Type: model},
		{Name: "epochs", Default: int64(10), Type: setting.Integer(1, 0)},
		{Name: "lr", Default: 0.001, Type: setting.Above(0, 1000)},
		{Name: "data.train", Type: setting.Text("a folder")},
		{Name: "augmentation.cutmix.enabled", Default: false, Type: setting.Truth()},
		{Name: "augmentation.cutmix.alpha", Default: 1.0, Type: setting.Above(0, 1000)},
		{Name: "normalization.mean", Default: []any{0.5, 0.5, 0.5}, Type: setting.List("three numbers", 3, setting.Within(-10, 10).Fits)},
	})
}

func all(string) bool { return true }

func TestLayers(t *testing.T) {
	c := fresh()
	if err := c.SetText("lr", "0.5", setting.Flag, "--lr"); err != nil {
		t.Fatal(err)
	}
	if err := c.ReadEnvironment("ATELIER_TRAIN_", []string{"HOME=/root", "ATELIER_TRAIN_EPOCHS=30", "ATELIER_TRAIN_AUGMENTATION_CUTMIX_ALPHA=0.4"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Set("model", "vanilla", setting.Prompt, "prompt"); err != nil {
		t.Fatal(err)
	}
	// The weakest comes last and moves only what nobody else has said.
	err := c.ReadFile("conf/x.yaml", []byte("model: vgg11\nepochs: 5\nlr: 1e-4\ndata:\n  train: pictures\naugmentation:\n  cutmix: {enabled: true}\nnormalization.mean: [0, 0.5, 1]\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range c.All() {
		got = append(got, fmt.Sprintf("%s=%s %s", v.Key, v.Text(), v.Source()))
	}
	want := `model=vanilla prompt
epochs=30 ATELIER_TRAIN_EPOCHS
lr=0.5 --lr
data.train=pictures conf/x.yaml:5
augmentation.cutmix.enabled=true conf/x.yaml:7
augmentation.cutmix.alpha=0.4 ATELIER_TRAIN_AUGMENTATION_CUTMIX_ALPHA
normalization.mean=[0,0.5,1] conf/x.yaml:8`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if text := string(c.JSON(all)); text != `{"model":"vanilla","epochs":30,"lr":0.5,"data":{"train":"pictures"},"augmentation":{"cutmix":{"enabled":true,"alpha":0.4}},"normalization":{"mean":[0,0.5,1]}}` {
		t.Error(text)
	}
	if text := string(fresh().JSON(func(k string) bool { return k == "data.train" || k == "lr" })); text != `{"lr":0.001}` {
		t.Errorf("unset keys are left out: %s", text)
	}
}

// A text flag that looks like a number stays a text where a text is wanted.
func TestSetText(t *testing.T) {
	c := fresh()
	for _, x := range []struct{ key, text, want string }{
		{"model", "2026", "2026"}, {"lr", "3", "3"}, {"lr", "1e-3", "0.001"}, {"normalization.mean", "[1, 2, 3]", "[1,2,3]"},
		{"data.train", "a: b", "a: b"}, {"data.train", "{a}", "{a}"}, {"augmentation.cutmix.enabled", "false", "false"}, {"data.train", "null", "null"},
	} {
		if err := c.SetText(x.key, x.text, setting.Flag, "--x"); err != nil || c.Get(x.key).Text() != x.want {
			t.Errorf("%s=%s: %v, %s", x.key, x.text, err, c.Get(x.key).Text())
		}
	}
}

// MIN-MAX is a least and a most, where a key has these two.
func TestSpans(t *testing.T) {
	whole := setting.Integer(1, 100)
	table := setting.Table{{Name: "members.min", Type: whole, Short: true}, {Name: "members.max", Type: whole, Short: true}, {Name: "name", Type: setting.Text("a name")}, {Name: "size", Type: whole}}
	c := setting.New(table)
	for text, want := range map[string][2]any{"3": {int64(3), int64(3)}, "2-40": {int64(2), int64(40)}} {
		if err := c.SetText("members", text, setting.Flag, "--members"); err != nil || c.Get("members.min").Data != want[0] || c.Get("members.max").Data != want[1] {
			t.Errorf("%s: %v-%v, %v", text, c.Get("members.min").Data, c.Get("members.max").Data, err)
		}
	}
	for key, text := range map[string]string{"members": "2-400", "members.min": "2-4", "size": "1-2"} {
		if err := c.SetText(key, text, setting.Flag, "--x"); err == nil {
			t.Errorf("%s=%s was taken", key, text)
		}
	}
	if err := c.SetText("name", "1-2", setting.Flag, "--name"); err != nil || c.Get("name").Data != "1-2" {
		t.Errorf("a text of two numbers: %v, %v", c.Get("name").Data, err)
	}
}

func TestFaultsOfAFile(t *testing.T) {
	for _, x := range []struct{ name, text, want string }{
		{"unknown key", "a: 1\nepochz: 3\n", `f.yaml:2: epochz: unknown key; did you mean "epochs"?`},
		{"unknown inside", "augmentation:\n  cutmix:\n    alfa: 1\n", `f.yaml:3: augmentation.cutmix.alfa: unknown key; did you mean "augmentation.cutmix.alpha"?`},
		{"bad value", "epochs: 0\n", `f.yaml:1: epochs: want a whole number from 1 on, got 0`},
		{"twice", "lr: 1\nepochs: 2\nlr: 2\n", `f.yaml:3: lr: appears twice; first in line 1`},
		{"twice, dotted", "data: {train: a}\ndata.train: b\n", `f.yaml:2: data.train: appears twice; first in line 1`},
		{"no value", "lr:\n", `f.yaml:1: lr: it has no value; its default is 0.001: leave the key out for that`},
		{"object for a value", "lr: {x: 1}\n", `f.yaml:1: lr: want a value, not keys of its own`},
		{"alias", "model: &m vgg11\ndata: {train: *m}\n", `f.yaml:2: data.train: anchors and aliases`},
		{"merge", "data: &d {train: a}\naugmentation:\n  <<: *d\n", `f.yaml:3: augmentation: a key must be a word`},
		{"two documents", "lr: 1\n---\nlr: 2\n", `second document`},
		{"a list", "- lr\n", `f.yaml:1: want keys with values`},
		{"not YAML", "lr: [1\n", `f.yaml: line`},
		{"not finite", "lr: .nan\n", `f.yaml:1: lr: .nan is not a finite number`},
		{"a list of lists", "normalization: {mean: [[1]]}\n", `a list may contain numbers and words only`},
		{"too large", strings.Repeat("#", 1<<20+1), `a settings file has at most`},
	} {
		c := fresh()
		err := c.ReadFile("f.yaml", []byte(x.text))
		if err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want it to say %q", x.name, err, x.want)
		}
	}
	c := fresh()
	var faults setting.Faults
	if err := c.ReadFile("f.yaml", []byte("epochs: 0\nmodel: bad\nlr: 0.1\n")); !errors.As(err, &faults) || len(faults) != 2 || faults[0].Origin != setting.File {
		t.Errorf("two faults: %v", err)
	}
	if c.Float("lr") != 0.1 || c.Float("epochs") != 10 {
		t.Error("what is right is taken, what is wrong is not")
	}
	for _, empty := range []string{"", "# only a comment\n", "augmentation:\n  # cutmix: {}\n", "data: {}\n"} {
		if err := fresh().ReadFile("f.yaml", []byte(empty)); err != nil {
			t.Errorf("%q: %v", empty, err)
		}
	}
}

func TestUnknownVariable(t *testing.T) {
	err := fresh().ReadEnvironment("ATELIER_TRAIN_", []string{"ATELIER_TRAIN_EPOCH=3"})
	if err == nil || !strings.Contains(err.Error(), "ATELIER_TRAIN_EPOCH: not a setting; did you mean ATELIER_TRAIN_EPOCHS?") {
		t.Error(err)
	}
}

// Whatever a file says, what is taken can be written as JSON and satisfies the
// checks.
func FuzzReadFile(f *testing.F) {
	for _, s := range []string{"lr: 1\n", "augmentation: {cutmix: {alpha: 0.5}}\n", "normalization: {mean: [1, 2, 3]}\n", "a: &a [*a]\n", "? [x]\n: 1\n", "epochs: 0x10\n", "lr: 1e999\n", "---\n...\n", "model: !!binary aGk=\n", "epochs: !!int \"x\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := fresh()
		err := c.ReadFile("f.yaml", text)
		if b := c.JSON(all); !json.Valid(b) {
			t.Fatalf("JSON %s", b)
		}
		if c.Float("epochs") < 1 || c.String("model") == "bad" {
			t.Fatalf("took %v although its check refuses it", c.All())
		}
		var faults setting.Faults
		if err != nil && (!errors.As(err, &faults) || len(faults) == 0) {
			t.Fatalf("error without faults: %v", err)
		}
	})
}

// What a row hides is in nothing that is shown or stored of a configuration, whichever layer
// it came from, and a value that takes its place takes it away.
func TestHiddenPartOfAValue(t *testing.T) {
	c := setting.New(setting.Table{{Name: "server.uri", Type: setting.Text("an address"), Hide: func(text string) (string, secret.Text) {
		shown, hidden, _ := strings.Cut(text, "|")
		return shown, secret.New(hidden)
	}}})
	set := map[string]func() error{
		"file":        func() error { return c.ReadFile("x.yaml", []byte("server: {uri: a|hush}\n")) },
		"environment": func() error { return c.ReadEnvironment("X_", []string{"X_SERVER_URI=a|hush"}) },
		"flag":        func() error { return c.Override("server.uri", "a|hush") },
	}
	for _, layer := range []string{"file", "environment", "flag"} {
		if err := set[layer](); err != nil {
			t.Fatal(err)
		}
		if c.Secret("server.uri").Reveal() != "hush" || c.String("server.uri") != "a" {
			t.Errorf("%s: %q", layer, c.String("server.uri"))
		}
		if shown := fmt.Sprintf("%+v %#v %s %s", c, c.All(), c.JSON(all), c.Get("server.uri").Text()); strings.Contains(shown, "hush") {
			t.Errorf("%s: it shows: %s", layer, shown)
		}
	}
	if err := c.Override("server.uri", "b"); err != nil || c.Secret("server.uri").Set() {
		t.Errorf("%v; another value keeps what the last one hid", err)
	}
}
