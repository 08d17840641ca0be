package api

import (
	"fmt"

	"atelier/common/trial"
	"atelier/coordinator/state"
)

// ofTuning refuses what only a tuning has where a sweep is a run of inference;
// lacks is that, in words.
func ofTuning(sw *state.Sweep, lacks string) error {
	if sw.Kind != trial.Inference {
		return nil
	}
	return failure(fmt.Errorf("%w: sweep %s is an inference, not a tuning: %s; `atelier trial show %s 1` shows the run", state.ErrConflict, sw.ID, lacks, sw.ID))
}
