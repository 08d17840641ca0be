package wire

import (
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// Alias is a name that people gave a checkpoint.
func Alias(a *atelierv1.Alias) trial.Alias {
	return trial.Alias{Name: a.GetName(), Location: trial.Location(a.GetLocation()), Places: List(a.GetPlaces(), func(p *atelierv1.AliasPlace) trial.AliasPlace {
		return trial.AliasPlace{Sweep: p.GetSweepId(), Trial: p.GetTrial(), Epoch: p.GetEpoch(), SHA256: p.GetSha256(), Size: p.GetSize(), SinceMS: p.GetSinceMs(), By: p.GetBy(), Token: p.GetToken()}
	})}
}
