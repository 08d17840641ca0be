package sweep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"atelier/common/spec"
	"atelier/tuner/stop"
)

// stopping reads the rule that ends trials early, as canonical JSON; "" for
// none. asha and hyperband take max_epochs from training.epochs unless it is
// given. What a rule may be told is package stop's to know; only its faults get their lines here.
func (r *reader) stopping(n *yaml.Node, s *spec.Spec) string {
	if !r.mapping(n, "stopping", "{rule: asha, min_epochs: 1, max_epochs: 27, reduction: 3}") {
		return ""
	}
	before := len(r.errs)
	lines := map[string]*yaml.Node{} // looked up only
	for _, e := range r.entries(n, "stopping") {
		lines[e.name] = e.value
	}
	if len(r.errs) > before {
		return ""
	}
	var b bytes.Buffer
	if r.json(&b, n, "stopping", 0); len(r.errs) > before {
		return ""
	}
	epochs := trainingEpochs(s)
	// asha and hyperband need to know how far a trial would train; a person has said so already,
	// under training.
	text := b.Bytes()
	if rule := lines["rule"]; epochs > 0 && lines["max_epochs"] == nil && rule != nil && (rule.Value == stop.ASHA || rule.Value == stop.Hyperband) {
		text = fmt.Appendf(text[:len(text)-1], `,"max_epochs":%d}`, epochs)
	}
	set, err := stop.Parse(text)
	var fault *stop.Error
	switch {
	case errors.As(err, &fault):
		at, key := n, "stopping"
		if fault.Key != "" {
			key = join(key, fault.Key)
			if line := lines[fault.Key]; line != nil {
				at = line
			}
		}
		r.fail(at, key, "%s", fault.Message)
		return ""
	case err != nil:
		r.fail(n, "stopping", "%v", err)
		return ""
	case set.Rule == stop.None:
		return ""
	case set.Rule == stop.Segment:
		r.fail(lines["rule"], "stopping.rule", "%s is the rule of search_method pbt, which sets it by itself; choose one of %s", stop.Segment, strings.Join(stop.Rules, ", "))
		return ""
	// Neither number is the obvious one to follow.
	case set.MaxEpochs > 0 && epochs > 0 && set.MaxEpochs != epochs:
		r.fail(lines["max_epochs"], "stopping.max_epochs", "%d is not training.epochs %d, which is how far a trial trains that is never stopped; make them one, or drop this key", set.MaxEpochs, epochs)
		return ""
	}
	return set.JSON()
}

// trainingEpochs is how long every trial trains, 0 where the spec does not say
// or trials differ (epochs is searched). Rules that compare trials at fractions of the whole need it.
func trainingEpochs(s *spec.Spec) int {
	for _, p := range s.Space.Params {
		if p.Name == "epochs" {
			return 0
		}
	}
	var t struct {
		Epochs json.Number `json:"epochs"`
	}
	if json.Unmarshal([]byte(s.TrainingJSON), &t) != nil {
		return 0
	}
	n, err := t.Epochs.Int64()
	if err != nil || n < 1 || n > 1<<30 {
		return 0
	}
	return int(n)
}
