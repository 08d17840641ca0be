package state

import (
	"strconv"
	"strings"
)

// maxRequests bounds how many request ids are remembered; the oldest go first.
const maxRequests = 4096

// requestLog remembers commands that have no natural key by their request id,
// so that a repeat does nothing. ids and results only grow behind a View's back,
// and are made anew when they have slid far enough.
type requestLog struct {
	ids     []string // kind ":" request id, oldest first
	results []string // index of the first time, a blank, and the sweep it was about
}

func requestKey(kind, id string) string { return kind + ":" + id }

func rememberedResult(index uint64, sweep string) string {
	return strconv.FormatUint(index, 10) + " " + sweep
}

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
