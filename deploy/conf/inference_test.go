package conf

import (
	"os"
	"reflect"
	"testing"

	"atelier/common/setting"
	"atelier/tuner/infer"
)

// The file is the program's defaults: every key stands in it, with the value
// the program has without it.
func TestInferenceConfigIsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("inference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, plain := infer.New(), infer.New()
	if err := c.ReadFile("inference.yaml", text); err != nil {
		t.Fatal(err)
	}
	if _, _, err := infer.Settings(c); err != nil {
		t.Error(err)
	}
	for _, v := range c.All() {
		if v.Origin != setting.File {
			t.Errorf("%s is not in the file", v.Key)
		}
		want := plain.Get(v.Key).Data
		if !reflect.DeepEqual(v.Data, want) && (want == nil || c.Float(v.Key) == 0 || c.Float(v.Key) != plain.Float(v.Key)) {
			t.Errorf("%s: %v in the file, the default is %v", v.Key, v.Data, want)
		}
	}
}
