// Package secret is for what must not be seen: passwords, tokens, keys, addresses
// that are secret themselves. A Text does not print, whatever prints it; Reveal is
// the one way to what it holds, so that `git grep Reveal` lists every use.
//
// Secrets come from files that nobody else can read, or from environment variables
// that children do not inherit: never from flags, which every user of a machine can
// read. Harden keeps them out of crash dumps. The package refuses to store, send or
// compare them.
package secret

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
)

// Shown stands in print where a secret would.
const Shown = "[secret]"

// Text is a secret. The zero value holds none, and prints as nothing.
//
// The text is behind a pointer: what prints fields that it cannot call methods on
// (fmt, of an unexported field) shows an address.
type Text struct{ text *string }

// New makes a secret of a text; of "" none.
func New(text string) Text {
	if text == "" {
		return Text{}
	}
	return Text{&text}
}

// Set reports whether there is one.
func (t Text) Set() bool { return t.text != nil }

// Reveal is the secret itself, "" where there is none. Give it to who needs it and
// keep no copy.
func (t Text) Reveal() string {
	if t.text == nil {
		return ""
	}
	return *t.text
}

// String is Shown, or "" without a secret.
func (t Text) String() string {
	if t.text == nil {
		return ""
	}
	return Shown
}

// GoString is the same for %#v.
func (t Text) GoString() string { return t.String() }

// Format is the same for every verb and flag.
func (t Text) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// MarshalText is the same for encoders: JSON, YAML, keys of maps.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue is the same for logs.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Redact takes secrets out of other people's text, such as a server's answer, that may
// repeat them: as they are, escaped as in an address, in base64 or in a Go literal.
func Redact(text string, secrets ...Text) string {
	var all []string
	for _, s := range secrets {
		all = append(all, Forms(s.Reveal())...)
	}
	// The longest first: of two secrets one may be a part of the other.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	for _, form := range all {
		text = strings.ReplaceAll(text, form, Shown)
	}
	return text
}

// RedactError is an error whose text is redacted; what it wraps is still found in it.
func RedactError(err error, secrets ...Text) error {
	if err == nil {
		return nil
	}
	text := Redact(err.Error(), secrets...)
	if text == err.Error() {
		return err
	}
	return &redacted{text, err}
}

type redacted struct {
	text  string
	cause error
}

func (e *redacted) Error() string { return e.text }
func (e *redacted) Unwrap() error { return e.cause }

// Forms are the ways in which a secret is written down: itself, escaped, in base64, quoted;
// none of "".
func Forms(text string) []string {
	if text == "" {
		return nil
	}
	quoted := fmt.Sprintf("%q", text)
	out := []string{text, url.QueryEscape(text), url.PathEscape(text), url.UserPassword("", text).String()[1:], quoted[1 : len(quoted)-1]}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		out = append(out, e.EncodeToString([]byte(text)))
	}
	slices.Sort(out)
	return slices.Compact(out)
}
