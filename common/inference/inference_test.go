package inference_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"atelier/common/inference"
	"atelier/common/metadata"
)

func TestKeysAndDefaults(t *testing.T) {
	keys := inference.Table.Names()
	for _, want := range []string{"mode", "model.checkpoint", "paths.image_dir", "processing.limit", "quality_metrics.thresholds.min_coverage", "outputs.gradcam_heatmaps.raw", "explain_single_mode.true_class"} {
		if !slices.Contains(keys, want) {
			t.Errorf("no key %s in %v", want, keys)
		}
	}
	s, err := inference.Parse([]byte(`{"mode":"production","processing.limit":5,"quality_metrics.thresholds.min_concentration":0.5,"explain_single_mode.true_class":"gothic","processing.extensions":[".jpg"]}`))
	if err != nil || s.Mode != "production" || *s.Limit != 5 || s.MinConcentration != 0.5 || *s.TrueClass != "gothic" || s.MaxCoverage != 0.75 || len(s.Extensions) != 1 {
		t.Errorf("%+v %v", s, err)
	}
	if s, err := inference.Parse([]byte(`{"quality_metrics":{"semantics":"literature","thresholds":{"max_coverage":0.5}},"outputs":{"gradcam_heatmaps.raw":true}}`)); err != nil || s.Semantics != "literature" || s.MaxCoverage != 0.5 || !s.Raw {
		t.Errorf("nested: %+v %v", s, err)
	}
	if _, err := inference.Parse([]byte(`{"gradcam":{"top_k":1},"gradcam.top_k":2}`)); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
	if len(inference.Default().Extensions) < 5 {
		t.Error("parsing changed the defaults")
	}
}

func justErr(_ inference.Settings, err error) error { return err }

func TestFaultsAreAllTold(t *testing.T) {
	_, err := inference.Parse([]byte(`{"mod":"evaluate","mode":"evalute","processing.limit":0,"processing.batch_size":"many","gradcam.top_k":0,"quality_metrics.semantics":"book","explain_misclassifications_mode.sort_by":"size","processing.extensions":["jpg"]}`))
	for _, want := range []string{`did you mean "mode"?`, "did you mean evaluate?", "processing.limit", "processing.batch_size", "gradcam.top_k", "did you mean runbook?", "sort_by", "with their dot"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
	if err := justErr(inference.Parse([]byte(`{"processing.limit":null}`))); err != nil {
		t.Error(err)
	}
	if _, err := inference.Parse([]byte("[1]")); err == nil {
		t.Error("a list was taken")
	}
}

func TestJudge(t *testing.T) {
	th := inference.Default().Thresholds
	for name, c := range map[string]struct {
		q              metadata.Quality
		semantics      string
		drop, increase float64
		flags          string
	}{
		"sound":            {metadata.Quality{Full: 0.8, Only: 0.4, Hidden: 0.2, Concentration: 0.5, Coverage: 0.3}, "runbook", 50, -75, ""},
		"sees enough":      {metadata.Quality{Full: 0.8, Only: 0.78, Hidden: 0.9, Concentration: 0.5, Coverage: 0.3}, "runbook", 2.5, 12.5, "low_confidence_drop"},
		"everywhere":       {metadata.Quality{Full: 1, Only: 0.1, Concentration: 0.1, Coverage: 0.9}, "runbook", 90, -100, "low_concentration high_coverage"},
		"nowhere":          {metadata.Quality{Full: 1, Only: 0.1, Concentration: 0, Coverage: 0}, "runbook", 90, -100, "low_concentration low_coverage"},
		"literature":       {metadata.Quality{Full: 0.8, Only: 0.2, Concentration: 0.5, Coverage: 0.3}, "literature", 75, 0, "high_average_drop"},
		"literature sound": {metadata.Quality{Full: 0.5, Only: 0.6, Concentration: 0.5, Coverage: 0.3}, "literature", 0, 100, ""},
		"no confidence":    {metadata.Quality{Full: 0, Only: 0, Hidden: 0, Concentration: 0.5, Coverage: 0.3}, "runbook", 0, 0, "low_confidence_drop"},
	} {
		flags := strings.Join(th.Judge(&c.q, c.semantics, metadata.MapSize{Width: 7, Height: 7}), " ")
		if flags != c.flags || math.Abs(c.q.Drop-c.drop) > 1e-9 || math.Abs(c.q.Increase-c.increase) > 1e-9 {
			t.Errorf("%s: drop %v, increase %v, flags %q", name, c.q.Drop, c.q.Increase, flags)
		}
	}
	if inference.Formulas("runbook")[0] == inference.Formulas("literature")[0] {
		t.Error("formulas are the same")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"mode":"evaluate","processing.limit":null}`))
	f.Add([]byte(`{"processing.extensions":[1]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := inference.Parse(b); err == nil && !slices.Contains(inference.Modes(), s.Mode) {
			t.Errorf("mode %q", s.Mode)
		}
	})
}
