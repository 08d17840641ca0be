package cli

import (
	"context"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"

	"connectrpc.com/connect"
)

// sayOtherData warns of a sweep whose trials did not all train and validate on
// the same data. Trainers that tell of none are not asked further.
func (e *Env) sayOtherData(ctx context.Context, api *client.Client, sweep string) error {
	var numbers []int64
	for after, told := int64(0), false; ; {
		r, err := api.Trials.ListTrials(ctx, connect.NewRequest(&atelierv1.ListTrialsRequest{SweepId: sweep, After: after, Limit: trialPage}))
		if err != nil {
			return err
		}
		page := r.Msg.GetTrials()
		for _, t := range page {
			told = told || t.GetData() != ""
			if t.GetOtherData() {
				numbers = append(numbers, t.GetNumber())
			}
			after = t.GetNumber()
		}
		if len(page) < trialPage || !told {
			break
		}
	}
	if text := trial.OtherDataText(numbers); text != "" {
		e.say("warning: %s", text)
	}
	return nil
}
