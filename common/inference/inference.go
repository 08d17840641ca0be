// Package inference is what the command and the trainer both know of inference:
// its modes, its settings and their defaults, and what makes a prediction
// suspicious. It does no inference and reads no files.
package inference

import (
	"atelier/common/metadata"
	"atelier/common/setting"
)

// Modes.
const (
	Evaluate       = "evaluate"
	ExplainSingle  = "explain_single"
	ExplainBatch   = "explain_batch"
	ExplainWrong   = "explain_misclassifications"
	Plain          = "inference"
	Production     = "production"
	Runbook        = "runbook"
	Literature     = "literature"
	ByConfidence   = "confidence"
	AtRandom       = "random"
	ResultsFile    = "evaluation_results.json"
	MetadataFile   = "inference_metadata.jsonl"
	ReportFile     = "inference_report.txt"
	LogFile        = "inference.log"
	PredictionsCSV = "predictions.csv"
)

// Modes lists all modes.
func Modes() []string {
	return []string{Evaluate, ExplainSingle, ExplainBatch, ExplainWrong, Plain, Production}
}

// Settings are what a run of inference is asked for. The JSON form is flat,
// with dotted keys; the file people write nests them.
type Settings struct {
	Mode       string `json:"mode"`
	Checkpoint string `json:"model.checkpoint"`

	Image  string `json:"paths.image_path"` // of explain_single
	Images string `json:"paths.image_dir"`
	Output string `json:"paths.output_dir"` // empty = results/ beside the checkpoint

	Limit      *int     `json:"processing.limit"` // nil = all
	Batch      int      `json:"processing.batch_size"`
	Extensions []string `json:"processing.extensions"`
	Precision  string   `json:"processing.precision"` // fp32 | bf16 | fp16
	Seed       uint64   `json:"processing.seed"`      // of random choices

	Accuracy  bool  `json:"evaluation.metrics.accuracy"`
	PerClass  bool  `json:"evaluation.metrics.per_class_metrics"`
	Confusion bool  `json:"evaluation.metrics.confusion_matrix"`
	TopK      bool  `json:"evaluation.metrics.top_k_accuracy"`
	TopKs     []int `json:"evaluation.top_k"`

	TrueClass *string `json:"explain_single_mode.true_class"`

	WrongLimit int    `json:"explain_misclassifications_mode.limit"`
	WrongSort  string `json:"explain_misclassifications_mode.sort_by"` // confidence | random

	GradCAM    bool `json:"gradcam.enabled"`
	GradCAMTop int  `json:"gradcam.top_k"`

	RunEvaluation bool `json:"production_mode.run_evaluation"`
	RunQuality    bool `json:"production_mode.run_quality_checks"`
	Report        bool `json:"production_mode.generate_report"`

	Quality    bool   `json:"quality_metrics.enabled"`
	Flag       bool   `json:"quality_metrics.flag_suspicious"`
	Semantics  string `json:"quality_metrics.semantics"` // runbook | literature
	Thresholds        // flat

	Heatmaps       bool `json:"outputs.gradcam_heatmaps.enabled"`
	SuspiciousOnly bool `json:"outputs.gradcam_heatmaps.save_suspicious_only"`
	SeparateDirs   bool `json:"outputs.gradcam_heatmaps.separate_dirs"`
	Raw            bool `json:"outputs.gradcam_heatmaps.raw"`
	Comparison     bool `json:"outputs.class_comparison"`
	Metadata       bool `json:"outputs.metadata"`
	Predictions    bool `json:"outputs.predictions"` // predictions.csv of mode inference
}

// Thresholds of quality. Drops are per cent, the others shares.
type Thresholds struct {
	MinDrop          float64 `json:"quality_metrics.thresholds.min_confidence_drop"` // runbook semantics
	MaxDrop          float64 `json:"quality_metrics.thresholds.max_average_drop"`    // literature semantics
	MinConcentration float64 `json:"quality_metrics.thresholds.min_concentration"`
	MaxCoverage      float64 `json:"quality_metrics.thresholds.max_coverage"`
	MinCoverage      float64 `json:"quality_metrics.thresholds.min_coverage"`
}

// Default settings: the runbook's.
func Default() Settings {
	var s Settings
	setting.Fill(&s, Table.Defaults())
	return s
}

// Parse lays a JSON object, flat or nested, over the defaults; the error is
// setting.Faults, all of them.
func Parse(doc []byte) (Settings, error) {
	s := Default()
	given, faults := Table.ReadJSON("", doc)
	setting.Fill(&s, given)
	return s, faults.OrNil()
}

// Judge fills a quality record's per cents and returns why the prediction is
// suspicious, nothing if it is not. Every reason is one of the map's, so a map
// too coarse to mean anything gives none. semantics is Runbook or Literature:
//
//	runbook     drop = 100 (full - only) / full, suspicious below MinDrop;
//	            increase = 100 (hidden - full) / full
//	literature  drop = 100 max(0, full - only) / full (Average Drop of Grad-CAM++,
//	            arXiv 1710.11063: low is good), suspicious above MaxDrop;
//	            increase = 100 if only > full, else 0
func (t Thresholds) Judge(q *metadata.Quality, semantics string, size metadata.MapSize) (flags []string) {
	full := max(q.Full, 1e-12)
	if semantics == Literature {
		q.Drop, q.Increase = 100*max(0, q.Full-q.Only)/full, 0
		if q.Only > q.Full {
			q.Increase = 100
		}
		if q.Drop > t.MaxDrop {
			flags = append(flags, "high_average_drop")
		}
	} else {
		q.Drop, q.Increase = 100*(q.Full-q.Only)/full, 100*(q.Hidden-q.Full)/full
		if q.Drop < t.MinDrop {
			flags = append(flags, "low_confidence_drop")
		}
	}
	if q.Concentration < t.MinConcentration {
		flags = append(flags, "low_concentration")
	}
	if q.Coverage > t.MaxCoverage {
		flags = append(flags, "high_coverage")
	}
	if q.Coverage < t.MinCoverage {
		flags = append(flags, "low_coverage")
	}
	if size.Coarse() {
		return nil
	}
	return flags
}

// Reason says in words why a flag makes a prediction suspicious.
func Reason(flag string) string {
	if text, ok := reasons[flag]; ok {
		return text
	}
	return flag
}

var reasons = map[string]string{
	"low_confidence_drop": "the answer hardly changes when only the marked region is seen",
	"high_average_drop":   "the marked region alone does not carry the answer",
	"low_concentration":   "the heat map is spread out",
	"high_coverage":       "the heat map covers most of the image",
	"low_coverage":        "the heat map is hardly more than a point",
}

// Formulas says in words what Judge computes, for reports.
func Formulas(semantics string) []string {
	if semantics == Literature {
		return []string{"average drop = 100 max(0, p - p_only) / p, low is good; increase = 100 where p_only > p (Grad-CAM++, arXiv 1710.11063)",
			"p: on the image; p_only: on image x map; concentration: Gini coefficient of the map; coverage: share of pixels >= 0.5"}
	}
	return []string{"confidence drop = 100 (p - p_only) / p; confidence increase = 100 (p_hidden - p) / p",
		"p: on the image; p_only: on image x map; p_hidden: on image x (1 - map); concentration: Gini coefficient of the map; coverage: share of pixels >= 0.5"}
}

// Summary is what a run of inference found and wrote, as the trainer tells it.
type Summary struct {
	Dir        string   `json:"output_dir"`
	Files      []string `json:"files"`  // below Dir, charts of single images not counted
	Images     int      `json:"images"` // looked at
	Skipped    int      `json:"skipped"`
	Suspicious int      `json:"suspicious"`
	Charts     int      `json:"pictures"`
	Evaluated  int      `json:"evaluated"`
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	Seconds    float64  `json:"seconds"`

	Architecture string             `json:"architecture"`
	Figures      map[string]float64 `json:"figures,omitempty"` // accuracy, macro_f1, mean_confidence, flagged_share, ...; shares but for *_drop and *_increase, which are per cent
	Drawn        []string           `json:"drawn,omitempty"`   // the first MaxDrawn charts of single images, below Dir
	Notes        []string           `json:"notes,omitempty"`   // what a person should know of it besides
}

// MaxDrawn is how many charts a Summary names.
const MaxDrawn = 50
