package settings

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// RateNote is what to know of the learning rate where a run goes on from a
// checkpoint whose updates were of another number of images; "" where there is
// nothing to say. config are the settings that the checkpoint carries, a JSON
// object. Members and shards change nothing of it: a batch is that of all together.
//
// Linear scaling: Goyal et al., "Accurate, Large Minibatch SGD", 2017. For
// adaptive optimisers the square root: Malladi et al., "On the SDEs and Scaling
// Rules for Adaptive Gradient Algorithms", 2022.
func RateNote(config []byte, s Settings) string {
	before := struct {
		BatchSize  float64 `json:"batch_size"`
		Accumulate float64 `json:"accumulate"`
		LR         float64 `json:"lr"`
	}{Accumulate: 1}
	if json.Unmarshal(config, &before) != nil {
		return ""
	}
	was, is := before.BatchSize*max(before.Accumulate, 1), float64(s.BatchSize)*float64(max(s.Accumulate, 1))
	if !(was >= 1 && was <= math.MaxInt32 && before.LR > 0) || was == is {
		return ""
	}
	linear, root := before.LR*is/was, before.LR*math.Sqrt(is/was)
	adaptive := s.Optimizer != "sgd"
	near := func(lr float64) bool { return math.Abs(s.LR-lr) <= 0.01*lr }
	if near(linear) || adaptive && near(root) {
		return "" // it is followed
	}
	short := func(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }
	text := fmt.Sprintf("an update is of %.0f images from here on, before of %.0f; lr is %s as it is set, the linear scaling rule (Goyal et al. 2017) gives %s",
		is, was, strconv.FormatFloat(s.LR, 'g', -1, 64), short(linear))
	if adaptive {
		text += fmt.Sprintf("; with %s the square root of the ratio is usual: %s", s.Optimizer, short(root))
	}
	return text
}
