package board

import (
	"fmt"
	"strings"

	"atelier/common/trial"
)

// Everything of one rebuild stands under its generation, so that a rebuild can
// be filled beside the old answer and take its place in one step.

// metaKey is a hash: cluster, generation and index (the watermark) of what the
// other keys hold, seen, when the cluster last said that it keeps them, and
// current, when they lacked nothing, in milliseconds of Redis's own clock. Without the first three there is nothing to
// read.
func metaKey(prefix string) string { return prefix + "meta" }

// buildingKey holds the generation that is being filled.
func buildingKey(prefix string) string { return prefix + "building" }

// generationPattern matches the keys of all generations.
func generationPattern(prefix string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(prefix) + "g:*"
}

// generationPrefix is of one building of the board: a rebuild writes beside the one that is read,
// and takes its place in one step.
func generationPrefix(prefix, generation string) string { return prefix + "g:" + generation + ":" }

// boardKey is a sorted set: member = memberOf(trial), score = the value, negated
// where more is better, so that rank 0 is always the best and equal values
// stand in trial order.
func boardKey(prefix, generation, sweep string) string {
	return generationPrefix(prefix, generation) + "sweep:" + sweep + ":board"
}

// rowsKey is a hash: member of boardKey -> JSON row with the exact value.
func rowsKey(prefix, generation, sweep string) string {
	return generationPrefix(prefix, generation) + "sweep:" + sweep + ":rows"
}

// checkpointsKey is a sorted set: member = memberOf(trial) ":" epoch ":" token,
// score = trial; its order is by trial, then epoch.
func checkpointsKey(prefix, generation, sweep string) string {
	return generationPrefix(prefix, generation) + "sweep:" + sweep + ":checkpoints"
}

// checkpointRowsKey is a hash: member of checkpointsKey -> JSON checkpoint.
func checkpointRowsKey(prefix, generation, sweep string) string {
	return generationPrefix(prefix, generation) + "sweep:" + sweep + ":checkpoint_rows"
}

// memberOf pads, so that Redis's order of equal scores (by bytes) is the order
// of numbers.
func memberOf(trial int64) string { return fmt.Sprintf("%019d", trial) }

// checkpointMember pads, as memberOf does.
func checkpointMember(c trial.Checkpoint) string {
	return fmt.Sprintf("%019d:%010d:%020d", c.Trial, c.Epoch, c.Token)
}
