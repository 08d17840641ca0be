package notify

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/state"
)

// mostText bounds the line, in bytes before it is escaped.
const mostText = 1000

// end is the document that is posted. Its keys are never renamed.
type end struct {
	Text      string            `json:"text"`     // one line for people, as Slack and its like show it
	Event     string            `json:"event"`    // sweep.finished, sweep.stopped, sweep.cancelled or sweep.failed
	Delivery  string            `json:"delivery"` // the same in every attempt to post this end
	Sweep     string            `json:"sweep"`
	Name      string            `json:"name"`
	State     trial.SweepStatus `json:"state"`
	Failure   string            `json:"failure"` // why, where it failed
	Ending    string            `json:"ending"`  // why it ended, where that is no failure
	Tags      []string          `json:"tags"`
	Objective trial.Objective   `json:"objective"`
	Best      *trial.BestTrial  `json:"best"` // null = no trial has a value
	Counts    trial.Counts      `json:"counts"`
	Epochs    int64             `json:"epochs"`
	CreatedMS int64             `json:"created_ms"`
	EndedMS   int64             `json:"ended_ms"`
}

// Document is what is posted of a sweep's end; now in Unix milliseconds.
func Document(s *state.Sweep, now int64) ([]byte, error) {
	r := wire.Sweep(s.Proto(now))
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(end{Text: line(&r), Event: "sweep." + r.Status.String(), Delivery: fmt.Sprintf("%s-%d", r.ID, r.EndedMS), Sweep: r.ID, Name: r.Name,
		State: r.Status, Failure: r.Failure, Ending: r.Ending, Tags: r.Tags, Objective: r.Objective, Best: r.Best, Counts: r.Counts, Epochs: r.Epochs,
		CreatedMS: r.CreatedMS, EndedMS: r.EndedMS})
	return b.Bytes(), err
}

// line tells the end in one line. What people and trainers wrote cannot mention anybody or
// set a link in Slack.
func line(r *trial.Sweep) string {
	name := r.ID
	if r.Name != "" {
		name = fmt.Sprintf("%s (%s)", r.Name, r.ID)
	}
	text := fmt.Sprintf("Sweep %s %s", name, map[trial.SweepStatus]string{trial.SweepCancelled: "was cancelled", trial.SweepStopped: "was stopped"}[r.Status])
	switch r.Status {
	case trial.SweepFinished:
		text = fmt.Sprintf("Sweep %s finished", name)
	case trial.SweepFailed:
		text = fmt.Sprintf("Sweep %s failed: %s", name, r.Failure)
	}
	if r.Best != nil {
		text += fmt.Sprintf(": best %s %.4g in trial %d, epoch %d (%s)", r.Objective.Metric, float64(r.Best.Value), r.Best.Trial, r.Best.Epoch, strings.Join(points(r.Best.Params), ", "))
	}
	text += fmt.Sprintf("; %d of %d trials ended", r.Counts.Over(), r.Counts.Proposed)
	if n := r.Counts.Failed + r.Counts.Diverged; n > 0 {
		text += fmt.Sprintf(", %d failed or diverged", n)
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > mostText {
		text = strings.ToValidUTF8(text[:mostText], "") + " ..."
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

// points are parameters as people write them, in the space's order.
func points(params json.RawMessage) (list []string) {
	d := json.NewDecoder(bytes.NewReader(params))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return list
		}
		var v any
		if d.Decode(&v) != nil {
			return list
		}
		if n, ok := v.(json.Number); ok {
			if f, err := n.Float64(); err == nil && strings.ContainsAny(n.String(), ".eE") {
				v = fmt.Sprintf("%.4g", f)
			}
		}
		list = append(list, fmt.Sprintf("%v=%v", key, v))
	}
	return list
}
