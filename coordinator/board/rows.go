package board

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"atelier/common/trial"
)

// Row is a trial's row of a leaderboard.
type Row struct {
	trial.Row
	// Goals are the values with which the trial is a candidate for the Pareto
	// front, of a sweep of several objectives; nil while it is none.
	Goals []float64
}

// row is a Row as it stands in Redis. Values are text: JSON has no infinity, and
// a reader in another language must not round them.
type row struct {
	Trial      int64          `json:"trial"`
	Status     trial.Status   `json:"status"`
	Value      string         `json:"value"`
	Params     string         `json:"params"`
	Epoch      int32          `json:"epoch"`
	Checkpoint trial.Location `json:"checkpoint,omitempty"`
	Values     []string       `json:"values,omitempty"`
	Goals      []string       `json:"goals,omitempty"`
	OtherData  bool           `json:"other_data,omitempty"`
	// Metrics are never left out: without them the row is of a program that did not
	// write them, and the state knows better.
	Metrics map[string]string `json:"metrics"`
}

type checkpointRow struct {
	Trial     int64          `json:"trial"`
	Epoch     int32          `json:"epoch"`
	Metric    string         `json:"metric,omitempty"`
	Size      int64          `json:"size"`
	SHA256    string         `json:"sha256"`
	Location  trial.Location `json:"location"`
	Worker    string         `json:"worker"`
	CreatedMS int64          `json:"created_ms"`
	Token     uint64         `json:"token"`
}

// encodeRow writes values as texts: JSON has no infinities.
func encodeRow(r Row) (string, error) {
	metrics := make(map[string]string, len(r.Metrics))
	for name, v := range r.Metrics {
		metrics[name] = formatValue(float64(v))
	}
	b, err := json.Marshal(row{
		Trial: r.Trial, Metrics: metrics, Status: r.Status, Value: formatValue(float64(r.Value)),
		Params: string(r.Params), Epoch: r.Epoch, Checkpoint: r.Checkpoint,
		Values: formatValues(r.Values), Goals: formatValues(r.Goals), OtherData: r.OtherData,
	})
	return string(b), err
}

// decodeRow reads a row of a sweep of so many objectives.
func decodeRow(text string, objectives int) (Row, error) {
	var r row
	fail := func(err error) (Row, error) { return Row{}, fmt.Errorf("leaderboard row: %w", err) }
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fail(err)
	}
	value, err := parseValue(r.Value)
	if err != nil {
		return fail(fmt.Errorf("value %q: %w", r.Value, err))
	}
	values, err := parseValues[trial.Number](r.Values)
	if err != nil {
		return fail(err)
	}
	goals, err := parseValues[float64](r.Goals)
	if err != nil {
		return fail(err)
	}
	metrics := make(map[string]trial.Number, len(r.Metrics))
	for name, text := range r.Metrics {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fail(fmt.Errorf("metric %s %q: %w", name, text, err))
		}
		metrics[name] = trial.Number(v)
	}
	switch {
	case r.Metrics == nil:
		return fail(fmt.Errorf("no metrics: %w", ErrNotThere))
	case r.Trial < 1 || r.Status == 0:
		return fail(fmt.Errorf("trial %d, status %q", r.Trial, r.Status))
	case objectives > 1 && len(values) != objectives: // of a program that wrote the first one alone
		return fail(fmt.Errorf("%d values of %d objectives: %w", len(values), objectives, ErrNotThere))
	case len(goals) != 0 && len(goals) != objectives:
		return fail(fmt.Errorf("%d goals of %d objectives", len(goals), objectives))
	}
	return Row{trial.Row{
		Trial: r.Trial, Status: r.Status, Value: trial.Number(value), Params: json.RawMessage(r.Params), Epoch: r.Epoch, Checkpoint: r.Checkpoint,
		Values: values, OtherData: r.OtherData, Metrics: metrics,
	}, goals}, nil
}

// formatValues is formatValue for a list.
func formatValues[T ~float64](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, formatValue(float64(v)))
	}
	return out
}

// parseValues reads what formatValues writes; a value that was not reported is
// NaN.
func parseValues[T ~float64](texts []string) ([]T, error) {
	var out []T
	for _, text := range texts {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("value %q: %w", text, err)
		}
		out = append(out, T(v))
	}
	return out, nil
}

// encodeCheckpoint leaves the sweep out: it is in the key.
func encodeCheckpoint(c trial.Checkpoint) (string, error) {
	r := checkpointRow{
		Trial: c.Trial, Epoch: c.Epoch, Size: c.Size, SHA256: c.SHA256, Location: c.Location,
		Worker: c.Worker, CreatedMS: c.CreatedMS, Token: c.Token,
	}
	if c.Metric != nil {
		r.Metric = strconv.FormatFloat(float64(*c.Metric), 'g', -1, 64)
	}
	b, err := json.Marshal(r)
	return string(b), err
}

// decodeCheckpoint reads what encodeCheckpoint writes.
func decodeCheckpoint(sweep, text string) (c trial.Checkpoint, err error) {
	var r checkpointRow
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return c, fmt.Errorf("checkpoint row: %w", err)
	}
	if r.Trial < 1 {
		return c, fmt.Errorf("checkpoint row: trial %d", r.Trial)
	}
	c = trial.Checkpoint{
		Sweep: sweep, Trial: r.Trial, Epoch: r.Epoch, Size: r.Size, SHA256: r.SHA256, Location: r.Location,
		Worker: r.Worker, CreatedMS: r.CreatedMS, Token: r.Token,
	}
	if r.Metric != "" {
		v, err := strconv.ParseFloat(r.Metric, 64)
		if err != nil {
			return c, fmt.Errorf("checkpoint row: metric %q: %w", r.Metric, err)
		}
		n := trial.Number(v)
		c.Metric = &n
	}
	return c, nil
}

// formatValue writes a value as both strconv and Redis's ZADD read it.
func formatValue(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+inf"
	case math.IsInf(v, -1):
		return "-inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// parseValue reads what formatValue writes.
func parseValue(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err == nil && math.IsNaN(v) {
		err = fmt.Errorf("NaN has no rank")
	}
	return v, err
}

// score is what the sorted set is ordered by: less is better.
func score(value float64, maximize bool) string {
	if maximize {
		value = -value
	}
	if value == 0 {
		value = 0 // no negative zero
	}
	return formatValue(value)
}
