package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/inference"
	"atelier/common/setting"
)

// inferNext prints what to look at first and what to do next.
func (e *Env) inferNext(o *inference.Summary, conf *setting.Config, stored *inference.Stored) {
	dir := e.relative(o.Dir)
	if look := worthALook(o); len(look) > 0 {
		e.say("Look at:")
		for _, name := range look {
			e.say("  %s", filepath.Join(dir, filepath.FromSlash(name)))
		}
	}
	model := conf.String(keyCheckpoint)
	if stored != nil { // @ is this inference by now
		model = fmt.Sprintf("%s/%d/%d", stored.Sweep, stored.Trial, stored.Epoch)
	}
	var next [][]string // commands, each option a word
	switch mode := conf.String("mode"); {
	case mode == inference.Evaluate && o.Accuracy != nil && *o.Accuracy < 1:
		next = append(next, []string{"atelier", "infer", "--mode " + inference.ExplainWrong, "--checkpoint " + quoted(model), "--image-dir " + quoted(conf.String(keyImages)), "--output-dir " + quoted(dir)})
	case slices.Contains(o.Files, inference.MetadataFile) && o.Suspicious > 0:
		next = append(next, []string{"atelier", "metadata", "query", quoted(filepath.Join(dir, inference.MetadataFile)), "--suspicious"})
	case slices.Contains(o.Files, inference.MetadataFile):
		next = append(next, []string{"atelier", "metadata", "query", quoted(filepath.Join(dir, inference.MetadataFile)), "--below 0.5"})
	}
	if stored != nil {
		next = append(next, []string{"atelier", "checkpoint", "pull", fmt.Sprint(stored.Sweep, " ", stored.Trial), fmt.Sprint("--epoch ", stored.Epoch)})
	} else {
		next = append(next, []string{"atelier", "serve", "--checkpoint " + quoted(model)})
	}
	e.say("Next:")
	for _, command := range next {
		e.paste("", command...)
	}
}

// worthALook are the files that a person opens first, at most four.
func worthALook(o *inference.Summary) (names []string) {
	for _, name := range []string{"evaluation_summary.txt", "confusion_matrix.png", inference.ReportFile, inference.PredictionsCSV} {
		if slices.Contains(o.Files, name) {
			names = append(names, name)
		}
	}
	charts := slices.Clone(drawn(o))
	slices.SortStableFunc(charts, func(a, b string) int { return flagged(b) - flagged(a) })
	names = append(names, slices.DeleteFunc(charts, func(name string) bool { return !filepath.IsLocal(name) })...)
	return names[:min(len(names), 4)]
}

// flagged is 1 for the folder of suspicious predictions.
func flagged(name string) int {
	if strings.HasPrefix(name, "suspicious/") {
		return 1
	}
	return 0
}
