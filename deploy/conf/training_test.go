package conf

import (
	"os"
	"reflect"
	"testing"

	"atelier/common/setting"
	"atelier/tuner/train"
)

// The file is the program's defaults: every key stands in it, with the value
// the program has without it.
func TestTrainingConfigIsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("training_config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, plain := train.New(), train.New()
	if err := c.ReadFile("training_config.yaml", text); err != nil {
		t.Fatal(err)
	}
	if len(c.All()) < 40 {
		t.Fatalf("only %d keys", len(c.All()))
	}
	for _, v := range c.All() {
		if v.Origin != setting.File {
			t.Errorf("%s is not in the file", v.Key)
		}
		want := plain.Get(v.Key).Data
		if n, ok := want.(float64); ok && c.Float(v.Key) == n || reflect.DeepEqual(v.Data, want) {
			continue
		}
		if n, ok := want.(int64); ok && c.Float(v.Key) == float64(n) {
			continue // 1.0 for 1
		}
		t.Errorf("%s: %v in the file, the default is %v", v.Key, v.Data, want)
	}
}
