package trial

import "encoding/json"

// Kind is what the runs of a sweep are. It is settled when the sweep is made.
type Kind int32

const (
	Training  Kind = iota + 1
	Inference      // one trial; its only checkpoint is a bundle of results, which nothing goes on from
)

var kindWords = []string{"", "training", "inference"}

// String is the kind's word.
func (k Kind) String() string { return word(kindWords, k) }

func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// KindOf is the kind that training settings say: those of a training have no key
// "task". Records of before sweeps had a kind are read by it, too.
func KindOf(training []byte) Kind {
	var t struct {
		Task *string `json:"task"`
	}
	if json.Unmarshal(training, &t) != nil || t.Task == nil {
		return Training // settings of a training, good or bad: the trainer says
	}
	return Inference
}
