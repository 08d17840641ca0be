package board

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"atelier/common/secret"
	"atelier/common/trial"
	"atelier/coordinator/state"
)

const (
	dialTimeout  = 300 * time.Millisecond
	tlsTimeout   = time.Second // of a connection with its handshake
	readTimeout  = 500 * time.Millisecond
	writeTimeout = 500 * time.Millisecond
	// fillTimeout bounds one chunk of a write; a batch may be some megabytes.
	fillTimeout = 2 * time.Second
	// downFor is how long readers leave a Redis alone that did not answer.
	downFor = time.Second
)

// ErrNotThere is returned when Redis answers but does not hold this cluster's
// board: empty, flushed, or another cluster's.
var ErrNotThere = errors.New("redis has no board of this cluster")

// OtherError is ErrNotThere of a Redis that holds the board of another cluster.
type OtherError struct {
	Cluster string
	Prefix  string
}

func (e *OtherError) Error() string {
	return fmt.Sprintf("redis prefix %q has the board of cluster %s: if that cluster runs, start the coordinators of this one with a --redis-prefix of its own", e.Prefix, e.Cluster)
}

func (e *OtherError) Unwrap() error { return ErrNotThere }

// ErrOvertaken is returned to a writer that did not find what it expected:
// another writer was faster, or Redis was flushed or set back.
var ErrOvertaken = errors.New("redis was changed by another hand")

// Redis is the board as Redis holds it.
type Redis struct {
	prefix string
	reads  *redis.Client
	writes *redis.Client // of its own: a slow write never takes a reader's connection

	generation atomic.Pointer[string] // that readers saw last
	mu         sync.Mutex
	downUntil  time.Time
	downErr    error
}

// Options of Open.
type Options struct {
	// Addr is HOST:PORT or a URL: redis://USER@HOST:PORT/DB, rediss:// with TLS,
	// unix:///PATH for a socket.
	Addr string
	// Password is that of the user the URL names, of the default user without one.
	Password     secret.Text
	Certificates Certificates
	Prefix       string // of all keys
}

// Open prepares connections to a Redis. It does not connect: Redis may come
// later. No error of this room holds a password.
func Open(opts Options) (*Redis, error) {
	logging.Disable() // the library's lines of its own say nothing that our errors do not
	o, err := parse(opts.Addr)
	if err != nil {
		return nil, err
	}
	if opts.Password.Set() {
		if o.Password != "" && o.Password != opts.Password.Reveal() {
			return nil, fmt.Errorf("the address %s and the password file (or environment) give different passwords: take the one out of the address", Mask(opts.Addr))
		}
		o.Password = opts.Password.Reveal()
	}
	if err := opts.Certificates.config(o); err != nil {
		return nil, err
	}
	prefix := opts.Prefix
	o.ContextTimeoutEnabled = true
	o.MaxRetries = 1
	o.DialerRetries = 1
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = dialTimeout, readTimeout, writeTimeout
	if o.TLSConfig != nil {
		o.DialTimeout, o.Dialer = tlsTimeout, dialTLS(o.TLSConfig)
	}
	o.PoolTimeout = dialTimeout
	o.PoolSize = 4
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	w := *o
	w.PoolSize = 1
	w.MaxRetries = -1 // the writer looks first, then repeats
	w.ReadTimeout, w.WriteTimeout = fillTimeout, fillTimeout
	r := &Redis{prefix: prefix, reads: redis.NewClient(o), writes: redis.NewClient(&w)}
	none := ""
	r.generation.Store(&none)
	return r, nil
}

// Close ends the connections.
func (r *Redis) Close() error { return errors.Join(r.reads.Close(), r.writes.Close()) }

// Found says how an answer of Redis stands to what there is.
type Found struct {
	Index uint64
	// Age is how long ago the board was known to lack nothing; negative where
	// that is not known.
	Age time.Duration
}

// Leaderboard reads the top rows of a sweep, all with top 0.
func (r *Redis) Leaderboard(ctx context.Context, cluster string, s *state.Sweep, top int) ([]trial.Row, Found, error) {
	texts, found, err := r.read(ctx, cluster, leaderboardScript, func(gen string) []string {
		return []string{boardKey(r.prefix, gen, s.ID), rowsKey(r.prefix, gen, s.ID)}
	}, depth(s, top)-1)
	if err != nil {
		return nil, Found{}, fmt.Errorf("leaderboard of %s from redis: %w", s.ID, err)
	}
	rows := make([]Row, len(texts))
	for i, text := range texts {
		if rows[i], err = decodeRow(text, len(s.Objectives)); err != nil {
			return nil, Found{}, fmt.Errorf("leaderboard of %s from redis: %w", s.ID, err)
		}
	}
	return ranked(s, rows, top), found, nil
}

// Checkpoints reads the checkpoints of a trial, of all trials with trial 0, by
// trial and epoch.
func (r *Redis) Checkpoints(ctx context.Context, cluster string, s *state.Sweep, number int64) ([]trial.Checkpoint, Found, error) {
	low, high := "-inf", "+inf"
	if number != 0 {
		low = strconv.FormatInt(number, 10)
		high = low
	}
	texts, found, err := r.read(ctx, cluster, checkpointsScript, func(gen string) []string {
		return []string{checkpointsKey(r.prefix, gen, s.ID), checkpointRowsKey(r.prefix, gen, s.ID)}
	}, low, high)
	if err != nil {
		return nil, Found{}, fmt.Errorf("checkpoints of %s from redis: %w", s.ID, err)
	}
	out := make([]trial.Checkpoint, len(texts))
	for i, text := range texts {
		if out[i], err = decodeCheckpoint(s.ID, text); err != nil {
			return nil, Found{}, fmt.Errorf("checkpoints of %s from redis: %w", s.ID, err)
		}
	}
	return out, found, nil
}

// read runs a reading script against the generation that is current.
func (r *Redis) read(ctx context.Context, cluster string, s *redis.Script, keys func(gen string) []string, args ...any) ([]string, Found, error) {
	if err := r.down(); err != nil {
		return nil, Found{}, err
	}
	gen := *r.generation.Load()
	for range 3 {
		out, err := s.Run(ctx, r.reads, append([]string{metaKey(r.prefix)}, keys(gen)...), append([]any{cluster, gen}, args...)...).StringSlice()
		if err != nil {
			err = explain(err)
			if ctx.Err() == nil {
				r.setDown(err)
			}
			return nil, Found{}, err
		}
		switch {
		case len(out) >= 3 && out[0] == "ok":
			found := Found{Age: -1}
			if found.Index, err = strconv.ParseUint(out[1], 10, 64); err != nil {
				return nil, Found{}, fmt.Errorf("watermark %q is not a number: %w", out[1], ErrNotThere)
			}
			if ms, err := strconv.ParseInt(out[2], 10, 64); err == nil {
				found.Age = time.Duration(ms) * time.Millisecond
			}
			return out[3:], found, nil
		case len(out) == 2 && out[0] == "moved":
			gen = out[1]
			r.generation.Store(&gen)
		case len(out) == 2 && out[0] == "other":
			return nil, Found{}, &OtherError{Cluster: out[1], Prefix: r.prefix}
		default:
			return nil, Found{}, ErrNotThere
		}
	}
	return nil, Found{}, ErrOvertaken
}

// down is why readers leave Redis alone for now; nil when they may ask.
func (r *Redis) down() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().Before(r.downUntil) {
		return r.downErr
	}
	return nil
}

// setDown spares the readers of the next second their time-outs.
func (r *Redis) setDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.downUntil, r.downErr = time.Now().Add(downFor), err
}
