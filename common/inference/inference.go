// Package inference is what the command and the trainer both know of inference:
// its modes, its settings and their defaults, and what makes a prediction
// suspicious. It does no inference and reads no files.
package inference

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"atelier/common/dataset"
	"atelier/common/metadata"
	"atelier/common/nearest"
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
	return Settings{Mode: Evaluate, Images: "architectural_style_images/test", Batch: 32,
		Extensions: slices.Clone(dataset.Extensions), Precision: "fp32", Seed: 42,
		Accuracy: true, PerClass: true, Confusion: true, TopK: true, TopKs: []int{1, 3, 5},
		WrongLimit: 20, WrongSort: ByConfidence, GradCAM: true, GradCAMTop: 5, RunQuality: true, Report: true,
		Quality: true, Flag: true, Semantics: Runbook,
		Thresholds: Thresholds{MinDrop: 10, MaxDrop: 50, MinConcentration: 0.25, MaxCoverage: 0.75, MinCoverage: 0.05},
		Heatmaps:   true, SeparateDirs: true, Comparison: true, Metadata: true, Predictions: true}
}

// Keys lists all keys, in order.
func Keys() []string {
	b, err := json.Marshal(Default())
	if err != nil {
		panic(err) // plain values only
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	var keys []string
	for depth := 0; ; {
		t, err := dec.Token()
		if err != nil {
			return keys
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
		case string:
			if depth == 1 {
				keys = append(keys, t)
				var skip json.RawMessage
				if dec.Decode(&skip) != nil {
					return keys
				}
			}
		}
	}
}

// Parse lays a JSON object, flat or nested, over the defaults and checks everything; the
// error lists all faults.
func Parse(doc []byte) (Settings, error) {
	s := Default()
	raw := map[string]json.RawMessage{}
	if err := flatten(raw, "", doc, 0); err != nil {
		return s, fmt.Errorf("inference settings: %w", err)
	}
	var faults []error
	names := make([]string, 0, len(raw))
	for name := range raw {
		names = append(names, name)
	}
	slices.Sort(names)
	known := Keys()
	for _, name := range names {
		if !slices.Contains(known, name) {
			faults = append(faults, fmt.Errorf("%s: unknown key; did you mean %s?", name, nearest.Word(name, known)))
			continue
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: raw[name]})
		if err == nil {
			err = json.Unmarshal(one, &s)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s does not fit: %w", name, raw[name], err))
		}
	}
	if err := s.check(); err != nil {
		faults = append(faults, err)
	}
	return s, errors.Join(faults...)
}

// flatten writes nested objects as dotted keys.
func flatten(into map[string]json.RawMessage, prefix string, doc []byte, depth int) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(doc, &raw); err != nil {
		return err
	}
	for name, value := range raw {
		if key := prefix + name; bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) && depth < 8 {
			if err := flatten(into, key+".", value, depth+1); err != nil {
				return err
			}
		} else if _, twice := into[key]; twice {
			return fmt.Errorf("%s stands twice", key)
		} else {
			into[key] = value
		}
	}
	return nil
}

// Check tells whether a value fits a key, all others being at their defaults.
func Check(key string, value []byte) error {
	doc, err := json.Marshal(map[string]json.RawMessage{key: value})
	if err != nil {
		return err
	}
	_, err = Parse(doc)
	return err
}

func (s Settings) check() error {
	var faults []error
	bad := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, a...)))
	}
	one := func(key, value string, of ...string) {
		if !slices.Contains(of, value) {
			bad(key, "%q is none of %s; did you mean %s?", value, strings.Join(of, ", "), nearest.Word(value, of))
		}
	}
	one("mode", s.Mode, Modes()...)
	one("quality_metrics.semantics", s.Semantics, Runbook, Literature)
	one("explain_misclassifications_mode.sort_by", s.WrongSort, ByConfidence, AtRandom)
	one("processing.precision", s.Precision, "fp32", "bf16", "fp16")
	if s.Limit != nil && *s.Limit < 1 {
		bad("processing.limit", "%d: want at least 1, or null for all", *s.Limit)
	}
	if s.Batch < 1 || s.Batch > 4096 {
		bad("processing.batch_size", "%d: want 1 to 4096", s.Batch)
	}
	if s.WrongLimit < 1 {
		bad("explain_misclassifications_mode.limit", "%d: want at least 1", s.WrongLimit)
	}
	if s.GradCAMTop < 1 || s.GradCAMTop > 100 {
		bad("gradcam.top_k", "%d: want 1 to 100", s.GradCAMTop)
	}
	for _, k := range s.TopKs {
		if k < 1 {
			bad("evaluation.top_k", "%d: want numbers from 1 on", k)
		}
	}
	if len(s.Extensions) == 0 {
		bad("processing.extensions", "want at least one, such as .jpg")
	}
	for _, x := range s.Extensions {
		if len(x) < 2 || x[0] != '.' {
			bad("processing.extensions", "%q: want endings with their dot, such as .jpg", x)
		}
	}
	for _, t := range []struct {
		key   string
		value float64
		high  float64
	}{{"min_confidence_drop", s.MinDrop, 100}, {"max_average_drop", s.MaxDrop, 100}, {"min_concentration", s.MinConcentration, 1}, {"max_coverage", s.MaxCoverage, 1}, {"min_coverage", s.MinCoverage, 1}} {
		if !(t.value >= -t.high && t.value <= t.high) {
			bad("quality_metrics.thresholds."+t.key, "%v: want a number up to %v", t.value, t.high)
		}
	}
	return errors.Join(faults...)
}

// Judge fills a quality record's per cents and returns why the prediction is
// suspicious, nothing if it is not. semantics is Runbook or Literature:
//
//	runbook     drop = 100 (full - only) / full, suspicious below MinDrop;
//	            increase = 100 (hidden - full) / full
//	literature  drop = 100 max(0, full - only) / full (Average Drop of Grad-CAM++,
//	            arXiv 1710.11063: low is good), suspicious above MaxDrop;
//	            increase = 100 if only > full, else 0
func (t Thresholds) Judge(q *metadata.Quality, semantics string) (flags []string) {
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
	return flags
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

// Outcome is what a run of inference found and wrote, as the trainer tells it.
type Outcome struct {
	Dir        string   `json:"output_dir"`
	Files      []string `json:"files"`  // below Dir, pictures of single images not counted
	Images     int      `json:"images"` // looked at
	Skipped    int      `json:"skipped"`
	Suspicious int      `json:"suspicious"`
	Pictures   int      `json:"pictures"`
	Evaluated  int      `json:"evaluated"`
	Accuracy   *float64 `json:"accuracy,omitempty"`
	MacroF1    *float64 `json:"macro_f1,omitempty"`
	Seconds    float64  `json:"seconds"`

	Architecture string             `json:"architecture"`
	Figures      map[string]float64 `json:"figures,omitempty"` // accuracy, macro_f1, mean_confidence, flagged_share, ...; shares but for *_drop and *_increase, which are per cent
	Drawn        []string           `json:"drawn,omitempty"`   // the first MaxDrawn pictures of single images, below Dir
}

// MaxDrawn is how many pictures an Outcome names.
const MaxDrawn = 50
