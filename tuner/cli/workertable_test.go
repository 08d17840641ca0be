package cli

import (
	"slices"
	"strings"
	"testing"
	"time"

	"atelier/common/trial"
)

// A worker that is lost does nothing that is known: its last figures are not shown.
func TestALostWorkerHasNoFigures(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	e := &Env{Now: func() time.Time { return now }}
	busy := func(name, state string) trial.Worker {
		return trial.Worker{Name: name, State: state, LastSeenMS: now.Add(-3 * time.Second).UnixMilli(), Slots: []trial.Slot{{Name: "s0"}},
			Usage: &trial.Usage{CPUPercent: 93, Cores: 4, MemoryUsed: 3e9, MemoryTotal: 8e9}}
	}
	tab := e.workerTable([]trial.Worker{busy("w1", "lost"), busy("w2", "ready")}, false)
	lost, ready := strings.Join(tab.rows[0], " "), strings.Join(tab.rows[1], " ")
	if strings.Contains(lost, "93") || strings.Contains(lost, "GB") || !strings.Contains(ready, "93") || !strings.Contains(ready, "GB") {
		t.Errorf("%q, %q", lost, ready)
	}
	if at := slices.Index(tab.head, "SEEN"); !strings.HasPrefix(tab.rows[0][at], "3.0s") {
		t.Errorf("last heard: %q", tab.rows[0][at])
	}
}
