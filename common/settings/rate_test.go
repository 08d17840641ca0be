package settings_test

import (
	"strings"
	"testing"

	"atelier/common/settings"
)

func TestRateNote(t *testing.T) {
	for _, c := range []struct {
		name, config, now string // now: beside batch_size 64
		want              string // "" = no note
	}{
		{"twice the batch", `{"batch_size":32,"lr":0.1,"accumulate":1}`, `"lr":0.1,"optimizer":"sgd"`,
			"an update is of 64 images from here on, before of 32; lr is 0.1 as it is set, the linear scaling rule (Goyal et al. 2017) gives 0.2"},
		{"a fourth", `{"batch_size":256,"lr":0.1}`, `"lr":0.1,"optimizer":"sgd"`, "gives 0.025"},
		{"adaptive", `{"batch_size":16,"lr":0.001}`, `"optimizer":"adam"`, "gives 0.004; with adam the square root of the ratio is usual: 0.002"},
		{"accumulated", `{"batch_size":64,"lr":0.1,"accumulate":1}`, `"lr":0.1,"optimizer":"sgd","accumulate":4`, "of 256 images from here on, before of 64"},
		{"accumulated as much", `{"batch_size":16,"lr":0.1,"accumulate":4}`, `"lr":0.1,"optimizer":"sgd"`, ""},
		{"members and shards", `{"batch_size":64,"lr":0.1,"shards":2}`, `"lr":0.1,"optimizer":"sgd","members":8,"shards":16`, ""},
		{"followed", `{"batch_size":32,"lr":0.1}`, `"lr":0.2,"optimizer":"sgd"`, ""},
		{"followed by the square root", `{"batch_size":16,"lr":0.001}`, `"lr":0.002,"optimizer":"adamw"`, ""},
		{"of another program", `{"epochs":3}`, ``, ""},
		{"no settings", ``, ``, ""},
	} {
		now := `{"batch_size":64,` + c.now
		if c.now != "" {
			now += ","
		}
		s, err := settings.Parse([]byte(now+folders+`}`), nil, "/b")
		if err != nil {
			t.Fatal(err)
		}
		if got := settings.RateNote([]byte(c.config), s); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzRateNote(f *testing.F) {
	f.Add([]byte(`{"batch_size":32,"lr":0.1,"accumulate":2}`))
	f.Add([]byte(`{"batch_size":1e308,"lr":1e-308,"accumulate":-1}`))
	s := settings.Default()
	f.Fuzz(func(t *testing.T, config []byte) {
		if note := settings.RateNote(config, s); strings.Contains(note, "NaN") || strings.Contains(note, "Inf") {
			t.Errorf("%q", note)
		}
	})
}
