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
	var next []string
	switch mode := conf.String("mode"); {
	case mode == inference.Evaluate && o.Accuracy != nil && *o.Accuracy < 1:
		next = append(next, fmt.Sprintf("atelier infer --mode %s --checkpoint %s --image-dir %s --output-dir %s", inference.ExplainWrong, quoted(model), quoted(conf.String(keyImages)), quoted(dir)))
	case slices.Contains(o.Files, inference.MetadataFile) && o.Suspicious > 0:
		next = append(next, fmt.Sprintf("atelier metadata query %s --suspicious", quoted(filepath.Join(dir, inference.MetadataFile))))
	case slices.Contains(o.Files, inference.MetadataFile):
		next = append(next, fmt.Sprintf("atelier metadata query %s --below 0.5", quoted(filepath.Join(dir, inference.MetadataFile))))
	}
	if stored != nil {
		next = append(next, fmt.Sprintf("atelier checkpoint pull %s %d --epoch %d", stored.Sweep, stored.Trial, stored.Epoch))
	} else {
		next = append(next, "atelier serve --checkpoint "+quoted(model))
	}
	e.say("Next:")
	for _, command := range next {
		e.say("  %s", command)
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
