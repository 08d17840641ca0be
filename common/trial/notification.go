package trial

import "strings"

// Notification is where a sweep's end is posted, and what became of that.
type Notification struct {
	URL      string        `json:"url"`    // from the cluster, scheme and host alone: the rest may be a secret
	On       []SweepStatus `json:"on"`     // ends that are posted; none = all
	EndMS    int64         `json:"end_ms"` // EndedMS of the end that the rest is about
	Attempts int32         `json:"attempts"`
	LastMS   int64         `json:"last_ms"` // of the last attempt
	Error    string        `json:"error"`   // of the last attempt; empty = it was delivered
	Done     bool          `json:"done"`    // delivered, or given up
}

// HookHost is scheme and host of a URL, without what may be secret: path, query,
// and name and password before the host. It never fails.
func HookHost(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return ""
	}
	if i := strings.IndexAny(rest, "/?#\\"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return scheme + "://" + rest
}
