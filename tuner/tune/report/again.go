package report

import (
	"fmt"
	"path/filepath"
	"strings"

	"atelier/common/setting"
	"atelier/common/space"
	"atelier/tuner/train"
)

// atLength is how many epochs the best configuration is trained for at least, to see what it can do.
const atLength = 50

// trainCommand is the `atelier train` that trains as a trial did, only longer: with the trial's parameters and with
// what all trials had, by the names that train's own table has for them.
func (v *view) trainCommand(t *Trial) string {
	table := train.Document.Table
	values := setting.New(table)
	given := map[string]bool{}
	// The sweep was accepted with these settings: what train does not know of them is left to the trainer.
	fixed, _ := table.ReadJSON("", v.Training)
	for _, g := range fixed {
		if path, ok := g.Data.(string); ok && v.Base != "" && path != "" && (strings.HasPrefix(g.Key, "data.") || g.Key == train.KeyWeights) {
			g.Data = setting.Absolute(v.Base, path)
		}
		// A default that was given is repeated, too: train's own file may have another value.
		if values.Set(g.Key, g.Data, setting.File, "") == nil {
			given[g.Key] = g.Data != nil || table.Find(g.Key).Default != nil
		}
	}
	for key, dir := range map[string]string{"data.train": v.Data, "data.validation": v.Validation} {
		if dir != "" && values.Set(key, dir, setting.File, "") == nil {
			given[key] = true
		}
	}
	epochs := int(values.Float("epochs"))
	given["epochs"] = false

	words := []string{"atelier train"}
	add := func(key, text string) {
		if s := table.Find(key); s != nil && s.Flag != "" && !s.Type.Switch {
			words = append(words, "--"+s.Flag+" "+shell(text))
		} else {
			words = append(words, "--set "+shell(key+"="+text))
		}
		given[key] = false
	}
	fix := func(keys ...string) {
		for _, key := range keys {
			if given[key] {
				add(key, values.Get(key).Text())
			}
		}
	}
	var searched []string
	for k, p := range v.Space.Params {
		if k >= len(t.Point) || t.Point[k].IsAbsent() {
			continue
		}
		if given[p.Name] = false; p.Name != "epochs" {
			searched = append(searched, p.Name)
		}
	}
	if _, chosen := v.Space.Lookup("model"); !chosen && v.Model != "" {
		add("model", v.Model)
	}
	train, validation := values.String("data.train"), values.String("data.validation")
	if dir := filepath.Dir(train); given["data.train"] && given["data.validation"] && train != "" &&
		filepath.Clean(train) == filepath.Join(dir, "train") && filepath.Clean(validation) == filepath.Join(dir, "validation") {
		words = append(words, "--data "+shell(dir))
		given["data.train"], given["data.validation"] = false, false
		if filepath.Clean(values.String("data.test")) == filepath.Join(dir, "test") {
			given["data.test"] = false
		}
	}
	fix("data.train", "data.validation", "data.test", "weights")
	for _, name := range searched {
		k, _ := v.Space.Lookup(name)
		add(name, whole(t.Point[k]))
	}
	fix(table.Names()...)
	return strings.Join(append(words, fmt.Sprintf("--epochs %d", max(atLength, 2*epochs))), " ")
}

// whole is a value with all its digits, as one types it.
func whole(x space.Value) string {
	if s, ok := x.Text(); ok {
		return s
	}
	return x.String()
}

// shell is a word for a POSIX shell, in quotes where it needs them.
func shell(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._=/+-", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
