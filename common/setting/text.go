package setting

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// SetText gives a key the value of a text that a person typed: a flag, a
// variable, KEY=VALUE. Where the key takes texts the text is the value, every
// byte of it. Elsewhere it is a value if the whole of it is one (0.1, true, null,
// [1, 2, 3]), else a text, for the key's check to refuse. No YAML is read here:
// it would cut a comment off and take the blanks and marks of a file's name.
//
// MIN-MAX, two whole numbers, is a value of an object with the short rows min and
// max (members: 1-8 is members.min: 1 and members.max: 8).
func (c *Config) SetText(key, text string, o Origin, where string) error {
	if m := span.FindStringSubmatch(text); m != nil && c.spans(key) {
		for i, name := range []string{"min", "max"} {
			if err := c.SetText(key+"."+name, m[i+1], o, where); err != nil {
				return err
			}
		}
		return nil
	}
	var data any = text
	if !c.wantsText(key) {
		d, err := Parse(text)
		if err != nil {
			return Fault{Where: where, Key: key, Message: err.Error(), Origin: o}
		}
		data = d
	}
	return c.Set(key, data, o, where)
}

// Override takes KEY=VALUE of a command line.
func (c *Config) Override(key, text string) error {
	return c.SetText(key, text, Flag, "--set "+key)
}

// span is MIN-MAX.
var span = regexp.MustCompile(`^([0-9]+)-([0-9]+)$`)

// spans reports whether a key is an object that a least and a most make up.
func (c *Config) spans(key string) bool {
	low, high := c.Table.Find(key+".min"), c.Table.Find(key+".max")
	return low != nil && high != nil && low.Short && high.Short
}

// wantsText reports whether a key takes any text.
func (c *Config) wantsText(key string) bool {
	i, ok := c.at[key]
	return ok && c.Table[i].Type.Text
}

// number is all that a person may write for one.
var (
	number       = regexp.MustCompile(`^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$`)
	leadingZeros = regexp.MustCompile(`^[-+]?0[0-9_]`)
)

// Number reads a number that takes up the whole text, as int64, uint64 or
// float64; ok is false for what is none. Leading zeros are an error: to some
// 010 is ten and to others eight.
func Number(text string) (v any, ok bool, err error) {
	if !number.MatchString(text) {
		return nil, false, nil
	}
	if leadingZeros.MatchString(text) {
		return nil, false, zerosError(text)
	}
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, true, nil
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return u, true, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, false, fmt.Errorf("%s is out of range for a 64-bit number", text)
	}
	return f, true, nil
}

// zerosError refuses 010: YAML 1.1 and C read eight, people ten.
func zerosError(text string) error {
	return fmt.Errorf("%s begins with a zero, which some read as an octal number: write it without", text)
}

// Whole reads a whole number that takes up the whole text.
func Whole(text string) (int64, error) {
	v, ok, err := Number(text)
	if err != nil {
		return 0, err
	}
	if i, whole := v.(int64); ok && whole {
		return i, nil
	}
	return 0, fmt.Errorf("%q is not a whole number", text)
}

// Parse is the value that a whole text stands for: a number, true, false, null,
// a list of these and of words; else the text itself.
func Parse(text string) (any, error) {
	switch text {
	case "null":
		return nil, nil
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	if v, ok, err := Number(text); ok || err != nil {
		return v, err
	}
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		return list(text[1 : len(text)-1])
	}
	return text, nil
}

// list reads items with commas between; an item with a comma or a blank at its
// ends stands in double quotes, as in JSON, or in single ones.
func list(text string) (any, error) {
	out := []any{}
	rest := strings.TrimSpace(text)
	for rest != "" {
		if len(out) == maxList {
			return nil, fmt.Errorf("a list of more than %d", maxList)
		}
		var item any
		switch rest[0] {
		case '"':
			var s string
			d := json.NewDecoder(strings.NewReader(rest))
			if err := d.Decode(&s); err != nil {
				return nil, fmt.Errorf("the list's item %.40s: its quotes are not closed", rest)
			}
			item, rest = s, rest[d.InputOffset():]
		case '\'':
			s, after, ok := strings.Cut(rest[1:], "'")
			if !ok {
				return nil, fmt.Errorf("the list's item %.40s: its quotes are not closed", rest)
			}
			item, rest = s, after
		default:
			word := rest
			if i := strings.IndexByte(rest, ','); i >= 0 {
				word = rest[:i]
			}
			rest = rest[len(word):]
			word = strings.TrimSpace(word)
			if word == "" || strings.ContainsAny(word, "[]{}") {
				return nil, errors.New("a list may contain numbers and words only, with commas between")
			}
			v, err := Parse(word)
			if err != nil {
				return nil, err
			}
			item = v
		}
		out = append(out, item)
		rest = strings.TrimSpace(rest)
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			return nil, fmt.Errorf("after the list's item %v comes %.40q: want a comma", item, rest)
		}
		rest = strings.TrimSpace(rest[1:])
	}
	return out, nil
}

// Expand is a path with ~/ at its start read as home, as a shell reads it; a
// shell leaves it alone in --out=~/x, in KEY=~/x and in files.
func Expand(path, home string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	if home == "" {
		return "", fmt.Errorf("%s: HOME is not set, so there is no home folder: write the whole path (a folder that is called ~ is ./~)", path)
	}
	return filepath.Join(home, strings.TrimPrefix(path, "~")), nil
}

// Absolute is a path that may be relative to base.
func Absolute(base, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(base, path)
}

// normal turns a float that is a whole number into an integer, so that 1e3 and
// 1000 are one value to whoever asks for a whole one.
func normal(x float64) any {
	if x == math.Trunc(x) && math.Abs(x) < 1<<53 && !(x == 0 && math.Signbit(x)) {
		return int64(x)
	}
	return x
}
