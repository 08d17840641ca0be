package board

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
)

// row is a leaderboard row as it stands in Redis. Values are text: JSON has no
// infinity, and a reader in another language must not round them.
type row struct {
	Trial      int64        `json:"trial"`
	Status     trial.Status `json:"status"`
	Value      string       `json:"value"`
	Params     string       `json:"params"`
	Epoch      int32        `json:"epoch"`
	Checkpoint string       `json:"checkpoint,omitempty"`
}

type checkpointRow struct {
	Trial     int64  `json:"trial"`
	Epoch     int32  `json:"epoch"`
	Metric    string `json:"metric,omitempty"`
	Size      int64  `json:"size"`
	SHA256    string `json:"sha256"`
	Location  string `json:"location"`
	Worker    string `json:"worker"`
	CreatedMS int64  `json:"created_ms"`
	Token     uint64 `json:"token"`
}

func encodeRow(r *atelierv1.LeaderboardRow) (string, error) {
	b, err := json.Marshal(row{
		Trial: r.Trial, Status: wire.Status(r.Status), Value: formatValue(r.Value),
		Params: r.ParamsJson, Epoch: r.Epoch, Checkpoint: r.Checkpoint,
	})
	return string(b), err
}

func decodeRow(text string) (*atelierv1.LeaderboardRow, error) {
	var r row
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("leaderboard row: %w", err)
	}
	value, err := parseValue(r.Value)
	if err != nil {
		return nil, fmt.Errorf("leaderboard row: value %q: %w", r.Value, err)
	}
	if r.Trial < 1 || r.Status == 0 {
		return nil, fmt.Errorf("leaderboard row: trial %d, status %q", r.Trial, r.Status)
	}
	return &atelierv1.LeaderboardRow{
		Trial: r.Trial, Status: wire.ToStatus(r.Status), Value: value, ParamsJson: r.Params, Epoch: r.Epoch, Checkpoint: r.Checkpoint,
	}, nil
}

func encodeCheckpoint(c *atelierv1.Checkpoint) (string, error) {
	r := checkpointRow{
		Trial: c.Trial, Epoch: c.Epoch, Size: c.Size, SHA256: c.Sha256, Location: c.Location,
		Worker: c.Worker, CreatedMS: c.CreatedMs, Token: c.Token,
	}
	if c.HasMetric {
		r.Metric = strconv.FormatFloat(c.Metric, 'g', -1, 64)
	}
	b, err := json.Marshal(r)
	return string(b), err
}

func decodeCheckpoint(sweep, text string) (*atelierv1.Checkpoint, error) {
	var r checkpointRow
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return nil, fmt.Errorf("checkpoint row: %w", err)
	}
	if r.Trial < 1 {
		return nil, fmt.Errorf("checkpoint row: trial %d", r.Trial)
	}
	c := &atelierv1.Checkpoint{
		SweepId: sweep, Trial: r.Trial, Epoch: r.Epoch, Size: r.Size, Sha256: r.SHA256, Location: r.Location,
		Worker: r.Worker, CreatedMs: r.CreatedMS, Token: r.Token,
	}
	if r.Metric != "" {
		v, err := strconv.ParseFloat(r.Metric, 64)
		if err != nil {
			return nil, fmt.Errorf("checkpoint row: metric %q: %w", r.Metric, err)
		}
		c.Metric, c.HasMetric = v, true
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
