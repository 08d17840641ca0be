package train_test

import (
	"os"
	"path/filepath"
	"testing"

	"atelier/common/setting"
	"atelier/tuner/train"
)

// A history or run.json that was damaged or edited by hand is an error or is
// understood; settings it brings are as good as those of a file.
func FuzzFolder(f *testing.F) {
	f.Add([]byte(`{"epochs":[1,2],"train_loss":[1,null],"train_acc":[0,1],"val_loss":[2,1],"val_acc":[0,1],"lr":[1,1],"images_per_s":[1,1],"epoch_seconds":[1,1]}`),
		[]byte(`{"format":1,"base_dir":"/x","threads":2,"values":[{"key":"lr","value":0.5,"source":"--lr"},{"key":"seed","value":18446744073709551615,"source":""}]}`))
	f.Add([]byte(`{"epochs":null}`), []byte(`{"format":1,"values":[{"key":"nosuch"}]}`))
	f.Add([]byte(`[]`), []byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, history, run []byte) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "resume"), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"training_history.json": history, "resume/run.json": run} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h, err := train.ReadHistory(filepath.Join(dir, "training_history.json"))
		if err == nil && (len(h.Epochs) != len(h.ValLoss) || len(h.Epochs) != len(h.Seconds)) {
			t.Errorf("lists of different lengths: %+v", h)
		}
		c := train.New()
		if _, err := train.Resume(dir, c); err != nil {
			return
		}
		fresh := train.New()
		for _, v := range c.All() {
			if err := fresh.Set(v.Key, v.Data, setting.File, ""); err != nil {
				t.Errorf("took %v: %v", v, err)
			}
		}
	})
}
