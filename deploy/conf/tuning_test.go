package conf

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"atelier/common/setting"
	"atelier/tuner/tune"
)

// The file is the program's defaults: every key of a tuning's own stands in it,
// with the value the program has without it, and the space is the default one.
func TestTuningConfigIsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("tuning_config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, plain := tune.New(), tune.New()
	if err := c.ReadFile("tuning_config.yaml", text); err != nil {
		t.Fatal(err)
	}
	for _, v := range c.All() {
		if strings.HasPrefix(v.Key, "training.") && v.Key != tune.KeyEpochs {
			continue // they stand in training_config.yaml
		}
		if v.Origin != setting.File {
			t.Errorf("%s is not in the file", v.Key)
		}
		if want := plain.Get(v.Key).Data; !reflect.DeepEqual(v.Data, want) {
			t.Errorf("%s: %v in the file, the default is %v", v.Key, v.Data, want)
		}
	}
	_, after, found := strings.Cut(string(text), "\nspace:\n")
	if space, _, _ := strings.Cut(after, "\n\n"); !found || strings.TrimSpace(strings.ReplaceAll("\n"+space, "\n  ", "\n")) != strings.TrimSpace(tune.DefaultSpace) {
		t.Errorf("the file's space:\n%s\nthe default:\n%s", space, tune.DefaultSpace)
	}
}
