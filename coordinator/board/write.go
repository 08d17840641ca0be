package board

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"atelier/common/trial"
)

// Mark says what a Redis holds: whose board, which rebuild of it, and the raft
// index it reflects. The zero Mark is an empty Redis.
type Mark struct {
	Cluster    string
	Generation string
	Index      uint64
}

// TrialRows is all that the board tells of one trial. Writing it replaces what
// stood there, so repeats do no harm.
type TrialRows struct {
	Sweep       string
	Trial       int64
	Maximize    bool
	Row         *Row // nil = not on the board
	Checkpoints []trial.Checkpoint
}

// HeldFor is how long a cluster's word that it keeps a board holds: longer than
// an election, shorter than a person waits who has replaced a cluster.
const HeldFor = 10 * time.Second

// HeldError says that the keys are another living cluster's.
type HeldError struct {
	Cluster string
	Prefix  string
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("redis prefix %q is in use by cluster %s: start the coordinators of this cluster with a --redis-prefix of its own", e.Prefix, e.Cluster)
}

// Mark reads what Redis holds.
func (r *Redis) Mark(ctx context.Context) (Mark, error) {
	found, err := r.look(ctx, "")
	return found.Mark, err
}

// Holding is what Look finds.
type Holding struct {
	Mark
	// Unclaimed says that a board is there whose cluster never says that it keeps it,
	// as programs before this rule did not. It is abandoned when it stands still
	// for HeldFor.
	Unclaimed bool
}

// Look reads what Redis holds and says, where that is the board of cluster, that
// the cluster keeps it. Where it is another one's that has said so within the last
// 10 s by Redis's clock, the error is a HeldError.
func (r *Redis) Look(ctx context.Context, cluster string) (Holding, error) {
	found, err := r.look(ctx, cluster)
	if err == nil && found.holder != "" {
		err = &HeldError{Cluster: found.holder, Prefix: r.prefix}
	}
	return found.Holding, err
}

// Held is the error of a board that is another cluster's.
func (r *Redis) Held(cluster string) error { return &HeldError{Cluster: cluster, Prefix: r.prefix} }

// looked is what is there, and which cluster has said of late that it keeps it.
type looked struct {
	Holding
	holder string
}

// look reads the watermark. For the cluster whose board it is it also says that it keeps it (see HeldFor).
func (r *Redis) look(ctx context.Context, cluster string) (looked, error) {
	text, err := lookScript.Run(ctx, r.writes, []string{metaKey(r.prefix)}, cluster, HeldFor.Milliseconds()).StringSlice()
	if err == nil && len(text) != 5 {
		err = fmt.Errorf("%d values", len(text))
	}
	if err != nil {
		return looked{}, fmt.Errorf("read watermark: %w", explain(err))
	}
	return looked{Holding{parseMark(text), text[0] != "" && text[0] != cluster && text[4] == ""}, text[3]}, nil
}

// parseMark reads cluster, generation and index.
func parseMark(text []string) Mark {
	index, err := strconv.ParseUint(text[2], 10, 64)
	if err != nil || text[0] == "" || text[1] == "" {
		// Damaged: keep the words for the comparison in publish, with no index.
		return Mark{Cluster: text[0], Generation: text[1]}
	}
	return Mark{Cluster: text[0], Generation: text[1], Index: index}
}

// Advance writes rows and moves the watermark from mark to index, in one step.
// The board lacks nothing that there was so long ago. ErrOvertaken: Redis does
// not hold mark; nothing was written, and the Mark returned is what was found.
func (r *Redis) Advance(ctx context.Context, from Mark, to uint64, ago time.Duration, rows []TrialRows) (Mark, error) {
	keys, args, err := r.writeArgs(from.Generation, []string{metaKey(r.prefix)},
		[]any{from.Cluster, from.Generation, from.Index, to, ago.Milliseconds()}, rows)
	if err != nil {
		return Mark{}, err
	}
	out, err := advanceScript.Run(ctx, r.writes, keys, args...).Slice()
	if err != nil {
		return Mark{}, fmt.Errorf("advance the board to %d: %w", to, err)
	}
	if len(out) == 4 {
		text := make([]string, 3)
		for i := range text {
			text[i], _ = out[i+1].(string)
		}
		return parseMark(text), ErrOvertaken
	}
	return Mark{Cluster: from.Cluster, Generation: from.Generation, Index: to}, nil
}

// Build is a generation being filled beside the one that is read.
type Build struct {
	r          *Redis
	cluster    string
	before     []string // meta as found at the start
	generation string
}

// format begins the names of generations whose rows are as this program writes
// them.
const format = "2-"

// Usable reports whether the board's rows are as this program writes them.
func (m Mark) Usable() bool { return strings.HasPrefix(m.Generation, format) }

// Begin starts a rebuild under a generation name never used before. A rebuild
// begun earlier, by whomever, cannot be filled further. HeldError: another living
// cluster keeps a board here.
func (r *Redis) Begin(ctx context.Context, cluster, generation string) (*Build, error) {
	if generation == "" || strings.ContainsAny(generation, ":*?[]\\") {
		return nil, fmt.Errorf("board generation %q: letters and digits only", generation)
	}
	generation = format + generation
	before, err := beginScript.Run(ctx, r.writes, []string{metaKey(r.prefix), buildingKey(r.prefix)}, cluster, generation, HeldFor.Milliseconds()).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("begin a rebuild of the board: %w", err)
	}
	if len(before) == 1 {
		return nil, &HeldError{Cluster: before[0], Prefix: r.prefix}
	}
	if len(before) != 3 {
		return nil, fmt.Errorf("begin a rebuild of the board: %d values", len(before))
	}
	return &Build{r: r, cluster: cluster, generation: generation, before: before}, nil
}

// Fill writes rows into the rebuild.
func (b *Build) Fill(ctx context.Context, rows []TrialRows) error {
	keys, args, err := b.r.writeArgs(b.generation, []string{buildingKey(b.r.prefix)}, []any{b.generation}, rows)
	if err != nil {
		return err
	}
	n, err := fillScript.Run(ctx, b.r.writes, keys, args...).Int()
	if err != nil {
		return fmt.Errorf("fill the board: %w", err)
	}
	if n != 1 {
		return ErrOvertaken
	}
	return nil
}

// Publish makes the rebuild the board that is read, as of index. It lacks nothing
// that there was so long ago.
func (b *Build) Publish(ctx context.Context, index uint64, ago time.Duration) (Mark, error) {
	n, err := publishScript.Run(ctx, b.r.writes, []string{metaKey(b.r.prefix), buildingKey(b.r.prefix)},
		b.cluster, b.generation, index, b.before[0], b.before[1], b.before[2], HeldFor.Milliseconds(), ago.Milliseconds()).Int()
	if err != nil {
		return Mark{}, fmt.Errorf("publish the board: %w", err)
	}
	if n != 1 {
		return Mark{}, ErrOvertaken
	}
	return Mark{Cluster: b.cluster, Generation: b.generation, Index: index}, nil
}

// Clear deletes what earlier generations left.
func (r *Redis) Clear(ctx context.Context) error {
	mark, err := r.Mark(ctx)
	if err != nil {
		return err
	}
	building, err := r.writes.Get(ctx, buildingKey(r.prefix)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("clear old boards: %w", err)
	}
	keep := func(key string) bool {
		return mark.Generation != "" && strings.HasPrefix(key, generationPrefix(r.prefix, mark.Generation)) ||
			building != "" && strings.HasPrefix(key, generationPrefix(r.prefix, building))
	}
	var cursor uint64
	for {
		var keys []string
		keys, cursor, err = r.writes.Scan(ctx, cursor, generationPattern(r.prefix), 500).Result()
		if err != nil {
			return fmt.Errorf("clear old boards: %w", err)
		}
		old := keys[:0]
		for _, k := range keys {
			if !keep(k) {
				old = append(old, k)
			}
		}
		if len(old) > 0 {
			if err := r.writes.Unlink(ctx, old...).Err(); err != nil {
				return fmt.Errorf("clear old boards: %w", err)
			}
		}
		if cursor == 0 {
			return nil
		}
	}
}

// writeArgs appends to keys and args what luaWrite reads.
func (r *Redis) writeArgs(generation string, keys []string, args []any, rows []TrialRows) ([]string, []any, error) {
	at := map[string]int{}
	for _, t := range rows {
		n, ok := at[t.Sweep]
		if !ok {
			n = len(at)
			at[t.Sweep] = n
			keys = append(keys, boardKey(r.prefix, generation, t.Sweep), rowsKey(r.prefix, generation, t.Sweep),
				checkpointsKey(r.prefix, generation, t.Sweep), checkpointRowsKey(r.prefix, generation, t.Sweep))
		}
		args = append(args, n, t.Trial, memberOf(t.Trial))
		if t.Row == nil {
			args = append(args, "", "")
		} else {
			text, err := encodeRow(*t.Row)
			if err != nil {
				return nil, nil, fmt.Errorf("row of trial %d of %s: %w", t.Trial, t.Sweep, err)
			}
			args = append(args, score(float64(t.Row.Value), t.Maximize), text)
		}
		args = append(args, len(t.Checkpoints))
		for _, c := range t.Checkpoints {
			text, err := encodeCheckpoint(c)
			if err != nil {
				return nil, nil, fmt.Errorf("checkpoint of trial %d of %s: %w", t.Trial, t.Sweep, err)
			}
			args = append(args, checkpointMember(c), text)
		}
	}
	return keys, args, nil
}
