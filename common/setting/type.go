package setting

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"atelier/common/nearest"
)

// Type is which values a setting takes, in words and as a check. Values are
// plain: bool, int64, uint64, float64, string or []any of these.
type Type struct {
	Want    string   // as a message says it: "a number from 0 to 1"
	Choices []string // where it takes one of a few words
	Text    bool     // any text is a value, a number's digits too
	Switch  bool     // true or false
	Whole   bool     // whole numbers alone

	fits  func(v any) bool
	fault func(v any) string // instead of "want ..., got ..."; may be nil
}

// Fits reports whether a value is one of the type.
func (t Type) Fits(v any) bool { return t.fits == nil || t.fits(v) }

// Check says what is wrong with a value.
func (t Type) Check(v any) error {
	switch {
	case t.Fits(v):
		return nil
	case t.fault != nil:
		return fmt.Errorf("%s", t.fault(v))
	}
	near := ""
	if s, ok := v.(string); ok {
		if word, ok := nearest.Close(s, t.Choices); ok {
			near = fmt.Sprintf("; did you mean %s?", word)
		}
	}
	return fmt.Errorf("want %s, got %s%s", t.Want, Shown(v), near)
}

// Faulty is the type with a message of its own for what does not fit.
func (t Type) Faulty(message func(v any) string) Type {
	t.fault = message
	return t
}

// Shown is a value in a message: as JSON, not too much of it.
func Shown(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		return fmt.Sprintf("%.60s", raw)
	}
	b, err := encode(v)
	if err != nil {
		return fmt.Sprintf("%.60v", v)
	}
	return fmt.Sprintf("%.60s", b)
}

// Truth is true or false.
func Truth() Type {
	return Type{Want: "true or false", Switch: true, fits: func(v any) bool { _, ok := v.(bool); return ok }}
}

// Integer takes whole numbers from low to high; high below low is no bound.
func Integer(low, high int64) Type {
	want := fmt.Sprintf("a whole number from %d to %d", low, high)
	if high < low {
		want, high = fmt.Sprintf("a whole number from %d on", low), math.MaxInt64
	}
	return Type{Want: want, Whole: true, fits: func(v any) bool { n, ok := v.(int64); return ok && n >= low && n <= high }}
}

// Unsigned takes whole numbers of 64 bits from 0 on.
func Unsigned() Type {
	return Type{Want: "a whole number from 0 on", Whole: true, fits: func(v any) bool {
		n, ok := v.(int64)
		_, large := v.(uint64)
		return large || ok && n >= 0
	}}
}

// Real takes finite numbers that are in; span says which.
func Real(span string, in func(x float64) bool) Type {
	return Type{Want: "a number " + span, fits: func(v any) bool { x, ok := float(v); return ok && in(x) }}
}

// Within takes numbers from low to high.
func Within(low, high float64) Type {
	return Real(fmt.Sprintf("from %g to %g", low, high), func(x float64) bool { return x >= low && x <= high })
}

// Above takes numbers above low and at most high.
func Above(low, high float64) Type {
	return Real(fmt.Sprintf("above %g and at most %g", low, high), func(x float64) bool { return x > low && x <= high })
}

// Below takes numbers from low to below high.
func Below(low, high float64) Type {
	return Real(fmt.Sprintf("from %g to below %g", low, high), func(x float64) bool { return x >= low && x < high })
}

// OneOf takes one of a few words.
func OneOf(words ...string) Type {
	return Type{Want: "one of " + strings.Join(words, ", "), Choices: words, fits: func(v any) bool { s, ok := v.(string); return ok && slices.Contains(words, s) }}
}

// Text takes any text but the empty one; want says of what: "a folder".
func Text(want string) Type {
	return Type{Want: want, Text: true, fits: func(v any) bool { s, ok := v.(string); return ok && s != "" }}
}

// Path takes the path of a file or a folder, but none below ~: whose home that
// is depends on the machine that reads it. A command expands ~ before.
func Path(want string) Type {
	return Type{Want: want, Text: true, fits: func(v any) bool { s, ok := v.(string); return ok && s != "" && !atHome(s) },
		fault: func(v any) string {
			if s, ok := v.(string); ok && atHome(s) {
				return "want a whole path: ~ has no home folder here, got " + Shown(v)
			}
			return fmt.Sprintf("want %s, got %s", want, Shown(v))
		}}
}

// atHome reports whether a path is in a home folder; where the program runs nobody's is meant.
func atHome(path string) bool { return path == "~" || strings.HasPrefix(path, "~/") }

// Is takes what fits; want says what that is.
func Is(want string, fits func(v any) bool) Type { return Type{Want: want, fits: fits} }

// List takes lists of at least one item, each of which fits; a length above 0
// is the only one that is taken.
func List(want string, length int, fits func(v any) bool) Type {
	return Type{Want: want, fits: func(v any) bool {
		list, ok := v.([]any)
		return ok && len(list) > 0 && (length == 0 || len(list) == length) && !slices.ContainsFunc(list, func(v any) bool { return !fits(v) })
	}}
}

// Three takes a list of three numbers that are in, of red, green and blue.
func Three(span string, in func(x float64) bool) Type {
	return List("three numbers "+span+", of red, green and blue", 3, func(v any) bool { x, ok := float(v); return ok && in(x) })
}

// float is any number as a float64.
func float(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case int64:
		return float64(n), true
	case uint64:
		return float64(n), true
	}
	return 0, false
}
