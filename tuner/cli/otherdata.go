package cli

import (
	"context"

	"atelier/common/client"
	"atelier/common/trial"
)

// sayOtherData warns of a sweep whose trials did not all train and validate on
// the same data. Trainers that tell of none are not asked further.
func (e *Env) sayOtherData(ctx context.Context, api *client.Client, sweep string) error {
	const enough = 1000
	var numbers []int64
	seen, told := 0, false
	for t, err := range api.Trials(ctx, sweep, client.Which{}) {
		if err != nil {
			return err
		}
		if seen == enough && !told {
			break
		}
		seen, told = seen+1, told || t.Data != ""
		if t.OtherData {
			numbers = append(numbers, t.Number)
		}
	}
	if text := trial.OtherDataText(numbers); text != "" {
		e.say("warning: %s", text)
	}
	return nil
}
