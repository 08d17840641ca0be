package state

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxRequests bounds how many request ids commands of rules 0 leave beside the
	// sweeps. What later ones remember there comes on top.
	maxRequests = 4096
	// maxOfKind bounds those of one kind of command, of a sweep or beside them.
	maxOfKind = 256
	// maxKinds is how many kinds of commands a sweep remembers, at most.
	maxKinds = 8
)

// requestLog remembers commands that have no natural key by their request id,
// so that a repeat does nothing. ids and results only grow behind a View's back,
// and are made anew when they have slid far enough.
//
// A command about a sweep is remembered with that sweep, and pushes out none but
// the oldest of its own kind there: neither the traffic of other sweeps nor a
// sweep that is paused and resumed a thousand times makes an extension count
// twice. The request that made a sweep is remembered as long as the sweep is
// there.
type requestLog struct {
	ids     []string // kind ":" request id, oldest first
	results []string // index of the first time, a blank, and the sweep it was about
}

// requestKey keeps the ids of different commands apart: a client may use one id for two calls.
func requestKey(kind, id string) string { return kind + ":" + id }

// rememberedResult is what a repeat is answered with: when it was done, and to which sweep.
func rememberedResult(index uint64, sweep string) string {
	return strconv.FormatUint(index, 10) + " " + sweep
}

// parseRemembered reads a result of a snapshot, and takes no other spelling of it.
func parseRemembered(s string) (index uint64, sweep string, ok bool) {
	number, sweep, ok := strings.Cut(s, " ")
	if !ok {
		return 0, "", false
	}
	index, err := strconv.ParseUint(number, 10, 64)
	return index, sweep, err == nil && strconv.FormatUint(index, 10) == number
}

// remember adds a key and returns the one that had to go, "" if none.
func (l *requestLog) remember(key, result string) (gone string) {
	if len(l.ids) >= maxRequests {
		gone = l.ids[0]
		l.ids, l.results = l.ids[1:], l.results[1:]
	}
	l.ids = append(l.ids, key)
	l.results = append(l.results, result)
	return gone
}

// rememberOfKind adds a key; the oldest of its kind goes where there are
// maxOfKind, and is returned.
func (l *requestLog) rememberOfKind(kind, key, result string) (gone string) {
	first, n := -1, 0
	for i, id := range l.ids {
		if strings.HasPrefix(id, kind) && strings.HasPrefix(id[len(kind):], ":") {
			if n++; first < 0 {
				first = i
			}
		}
	}
	if n >= maxOfKind {
		gone = l.ids[first]
		l.ids, l.results = without(l.ids, first), without(l.results, first)
	}
	l.ids = append(l.ids, key)
	l.results = append(l.results, result)
	return gone
}

// without is a copy of the list without one place: Views keep the old one.
func without(list []string, i int) []string {
	return append(append(make([]string, 0, len(list)), list[:i]...), list[i+1:]...)
}

// of returns what is remembered of a key.
func (l *requestLog) of(key string) (result string, known bool) {
	for i := len(l.ids) - 1; i >= 0; i-- {
		if l.ids[i] == key {
			return l.results[i], true
		}
	}
	return "", false
}

// load takes over what a snapshot remembers.
func (l *requestLog) load(ids, results []string, most int) error {
	if len(ids) != len(results) || len(ids) > most {
		return fmt.Errorf("%d requests and %d results", len(ids), len(results))
	}
	seen := make(map[string]bool, len(ids))
	for i, key := range ids {
		if _, _, ok := parseRemembered(results[i]); !ok {
			return fmt.Errorf("result %q of request %q", results[i], key)
		}
		if seen[key] {
			return fmt.Errorf("request %q twice", key)
		}
		seen[key] = true
		l.ids = append(l.ids, key)
		l.results = append(l.results, results[i])
	}
	return nil
}
