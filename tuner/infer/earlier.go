package infer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/inference"
	"atelier/common/setting"
)

// written are the files that a mode may write, by names that a person may have
// given a file as well. Charts carry the name of their image.
var written = map[string][]string{
	inference.Evaluate:     evaluation,
	inference.ExplainBatch: {inference.MetadataFile},
	inference.Plain:        {inference.PredictionsCSV, inference.MetadataFile, inference.ReportFile},
	inference.Production:   append([]string{inference.MetadataFile, inference.ReportFile}, evaluation...),
}

var evaluation = []string{inference.ResultsFile, "evaluation_summary.txt", "classification_report.txt", "confusion_matrix.png", "confusion_matrix_normalized.png", "class_accuracy.png",
	"per_class_metrics.png", "comprehensive_analysis.png", "train_history.png",
	"confusion_matrix.svg", "confusion_matrix_normalized.svg", "class_accuracy.svg", "per_class_metrics.svg", "comprehensive_analysis.svg", "train_history.svg"}

// Earlier are files in the folder of the results that a run may replace: those
// of an earlier inference, which leaves its log. Files of these names without
// one are somebody else's, and an error.
func Earlier(c *setting.Config, base string, model *inference.Stored) (there []string, err error) {
	dir, err := OutputDir(c, base, model)
	if err != nil {
		return nil, nil // said when it is needed
	}
	mode := c.String("mode")
	if _, err := os.Stat(filepath.Join(dir, inference.ResultsFile)); mode == inference.ExplainWrong && err != nil {
		mode = inference.Evaluate // which it begins with where there is no evaluation
	}
	for _, name := range written[mode] {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			there = append(there, name)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, inference.LogFile)); err == nil || len(there) == 0 {
		return there, nil
	}
	return there, fmt.Errorf("%s has %s, and no %s from an inference: nothing was done; give the results another folder with --output-dir, or replace it with --overwrite",
		dir, strings.Join(there, ", "), inference.LogFile)
}

// Replaced are those of the files that a run wrote.
func Replaced(there []string, out *inference.Summary) []string {
	return slices.DeleteFunc(slices.Clone(there), func(name string) bool { return !slices.Contains(out.Files, name) })
}
