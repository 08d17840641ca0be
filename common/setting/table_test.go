package setting_test

import (
	"strings"
	"testing"

	"atelier/common/setting"
)

var table = setting.Table{
	{Name: "data.train", Section: "Data", Type: setting.Path("a folder"), Help: "one subfolder a class", Aliases: []string{"train_dir"}, Flag: "train"},
	{Name: "seed", Section: "Run", Type: setting.Unsigned(), Default: int64(42)},
	{Name: "training.epochs", Type: setting.Integer(1, 100), Default: int64(10), Help: "at most"},
	{Name: "training.lr", Type: setting.Above(0, 1), Default: 0.1},
	{Name: "means", Section: "Data", Type: setting.Three("from 0 to 1", func(x float64) bool { return x >= 0 && x <= 1 }), Default: []any{0.5, int64(1), 0.25}},
	{Name: "kind", Type: setting.OneOf("plain", "fancy"), Default: "plain"},
	{Name: "limit", Type: setting.Integer(1, 0), Null: true},
	{Name: "space", Block: "\na: {low: 1}\nb: {low: 2}\n", Aliases: []string{"search_space"}, Help: "what is\nsearched"},
}

// What an unknown key stands for: another name, its last part alone, spelling.
func TestNear(t *testing.T) {
	for unknown, want := range map[string]string{"epochs": "training.epochs", "train_dir": "data.train", "Train_Dir": "data.train", "epochz": "training.epochs", "sead": "seed",
		"training.epoch": "training.epochs", "search_space": "space", "kinds": "kind"} {
		if got := table.Near(unknown); got != want {
			t.Errorf("%s: %s, want %s", unknown, got, want)
		}
	}
}

type target struct {
	Train  string     `json:"data.train"`
	Seed   uint64     `json:"seed"`
	Epochs int32      `json:"training.epochs"`
	LR     float64    `json:"training.lr"`
	Means  [3]float64 `json:"means"`
	Kind   string     `json:"kind"`
	Limit  *int       `json:"limit"`
}

func TestReadJSON(t *testing.T) {
	var x target
	setting.Fill(&x, table.Only(func(s setting.Setting) bool { return s.Block == "" }).Defaults())
	given, faults := table.ReadJSON("doc", []byte(`{"data":{"train":"/a"},"training":{"epochs":3.0},"training.lr":1,"seed":18446744073709551615,"limit":7}`))
	setting.Fill(&x, given)
	if len(faults) > 0 || x.Train != "/a" || x.Epochs != 3 || x.LR != 1 || x.Seed != 1<<64-1 || x.Means != [3]float64{0.5, 1, 0.25} || x.Kind != "plain" || *x.Limit != 7 {
		t.Errorf("%+v, %v", x, faults)
	}
	given, _ = table.ReadJSON("doc", []byte(`{"limit":null}`))
	if setting.Fill(&x, given); x.Limit != nil || setting.Field(&x, "seed") != uint64(1<<64-1) {
		t.Errorf("null: %+v", x)
	}
	for doc, want := range map[string]string{
		`{"epochs":3}`:                              `doc: unknown key "epochs"; did you mean "training.epochs"?`,
		`{"training":{"epochs":0}}`:                 `doc: training.epochs: want a whole number from 1 to 100, got 0`,
		`{"training":{"lr":0.1},"training.lr":0.2}`: `doc: training.lr appears twice`,
		`{"training":{"lr":0.1},"training":{}}`:     `doc: training appears twice`,
		`{"training":3}`:                            `doc: training: want a JSON object, got 3`,
		`{"kind":"fency"}`:                          `doc: kind: want one of plain, fancy, got "fency"; did you mean fancy?`,
		`{"seed":null}`:                             `doc: seed: want a whole number from 0 on, got null`,
		`{"seed":-1}`:                               `doc: seed: want a whole number from 0 on, got -1`,
		`{"means":[1,2,3]}`:                         `doc: means: want three numbers from 0 to 1, of red, green and blue, got [1,2,3]`,
		`{"means":[1,1]}`:                           `want three numbers`,
		`{"data":{"train":"~/x"}}`:                  `has no home folder here`,
		`{"seed":1`:                                 `doc: not JSON`,
		`{"seed":1} {}`:                             `doc: want one JSON object`,
		`[]`:                                        `doc: want a JSON object`,
		`{"training":{"lr":1e999},"kind":{"a":[{"b":1}]}}`: `doc: training.lr: want a number above 0 and at most 1, got 1e999`,
	} {
		if _, faults := table.ReadJSON("doc", []byte(doc)); faults == nil || !strings.Contains(faults.Error(), want) {
			t.Errorf("%s: %v, want %q", doc, faults, want)
		}
	}
	if err := setting.Nowhere(setting.Faults{{Where: "doc", Key: "seed", Message: "wrong"}}); err.Error() != "seed: wrong" {
		t.Error(err)
	}
}

func TestDocument(t *testing.T) {
	d := setting.Document{Command: "try", File: "conf/try.yaml", Prefix: "TRY_", Flags: "--train x", Variable: "TRY_SEED=1", Table: table}
	text := string(d.YAML())
	_, body, _ := strings.Cut(text, "folder.\n")
	want := `
# --- Data -----------------------------------------------------------------------------------------------------
data:
  train: null            # one subfolder a class
means: [0.5, 1, 0.25]
kind: plain
limit: null

space:                   # what is
                         # searched
  a: {low: 1}
  b: {low: 2}

# --- Run ------------------------------------------------------------------------------------------------------
seed: 42
training:
  epochs: 10  # at most
  lr: 0.1
`
	if flat := func(s string) string { return strings.Join(strings.Fields(s), " ") }; flat(body) != flat(want) {
		t.Errorf("%s", text)
	}
	c := setting.New(table)
	if err := c.ReadFile("try.yaml", []byte(text)); err != nil || c.Get("space").Block == nil || c.Get("space").Origin != setting.File || c.Get("seed").Data != int64(42) {
		t.Errorf("its own file: %v", err)
	}
	if err := c.ReadFile("x.yaml", []byte("search_space: {a: 1}\n")); err == nil || !strings.Contains(err.Error(), `x.yaml:1: search_space: unknown key; did you mean "space"?`) {
		t.Error(err)
	}
	if page := string(d.Markdown()); !strings.Contains(page, "| `data.train` | a folder | `null` | one subfolder a class; `--train` |") || !strings.Contains(page, "| `space` | keys of its own | as in the file | what is searched |") {
		t.Error(page)
	}
}

// Whatever JSON says, what is taken passes its rows and fits the struct.
func FuzzReadJSON(f *testing.F) {
	for _, s := range []string{`{"data":{"train":"/a"},"means":[0,1,1],"limit":null}`, `{"seed":1e3,"training.lr":0.5}`, `{"a":{"b":[{}]}}`, `{"kind":"\u0000"}`, `{"training":{"training":{}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		given, _ := table.ReadJSON("doc", doc)
		for _, g := range given {
			if s := table.Find(g.Key); s == nil || g.Data != nil && s.Type.Check(g.Data) != nil {
				t.Errorf("took %v", g)
			}
		}
		given = given[:0:0]
		all, _ := table.ReadJSON("doc", doc)
		for _, g := range all {
			if g.Key != "space" {
				given = append(given, g)
			}
		}
		var x target
		setting.Fill(&x, given)
		if x.Epochs < 0 || x.Epochs > 100 {
			t.Errorf("%+v", x)
		}
	})
}
