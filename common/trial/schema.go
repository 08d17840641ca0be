package trial

import atelierv1 "atelier/common/proto/atelier/v1"

// BestOf is Best of checkpoints as the API has them; nil where there is none.
func BestOf(all []*atelierv1.Checkpoint, maximize bool) *atelierv1.Checkpoint {
	at := Best(all, maximize, func(c **atelierv1.Checkpoint) Mark {
		return Mark{HasMetric: (*c).GetHasMetric(), Metric: (*c).GetMetric(), Token: (*c).GetToken(), Epoch: (*c).GetEpoch()}
	})
	if at < 0 {
		return nil
	}
	return all[at]
}
