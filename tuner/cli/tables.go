package cli

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"atelier/common/trial"
)

// What tables show of records.

// short is a number for people: four digits, but all of those before the point.
func short(v float64) string {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case math.Abs(v) >= 1e4 && math.Abs(v) < 1e15:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// shortValue is - where there is none.
func shortValue(n *trial.Number) string {
	if n == nil {
		return "-"
	}
	return short(float64(*n))
}

// pairs writes parameters as lr=0.01 depth=3, in the space's order.
func pairs(raw json.RawMessage) string {
	fields, err := flatten("", raw)
	if err != nil {
		return string(raw)
	}
	out := make([]string, 0, len(fields))
	for _, f := range fields {
		if f.key != "" {
			out = append(out, f.key+"="+f.short())
		}
	}
	return strings.Join(out, " ")
}

// age is how long ago something was; - for never.
func (e *Env) age(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return roundly(e.Now().Sub(time.UnixMilli(ms)))
}

// span is how long something took, or takes until now.
func (e *Env) span(fromMS, toMS int64) string {
	if fromMS == 0 {
		return "-"
	}
	if toMS == 0 {
		return e.age(fromMS)
	}
	return roundly(time.Duration(toMS-fromMS) * time.Millisecond)
}

// clock is UTC: machines of a cluster may be in several zones.
func clock(ms int64) string {
	if ms == 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05Z")
}

// roundly is a duration in its two largest units.
func roundly(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', map[bool]int{true: 1, false: 0}[d < 10*time.Second], 64) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// bytesOf is a size in binary units, as disks and memory are counted by systems.
func bytesOf(n int64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// dash fills an empty cell, so that tables read by cut and awk keep their columns.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// count is a number of things, in a table's cell.
func count(n int64) string { return strconv.FormatInt(n, 10) }

// thousands is a whole number with commas: 12,345.
func thousands[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is so many of something: 1 epoch, 12 classes.
func plural[T int | int64 | uint64](n T, word string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(word, "s"), strings.HasSuffix(word, "ch") && !strings.HasSuffix(word, "epoch"):
		word += "es"
	default:
		word += "s"
	}
	return thousands(n) + " " + word
}
