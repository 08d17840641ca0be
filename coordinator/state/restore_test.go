package state_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"atelier/coordinator/state"
)

// What was never a snapshot is called that, in words that do not speak of records;
// a stream that breaks off is the fault of where it comes from.
func TestRestoreOfSomethingElse(t *testing.T) {
	for name, r := range map[string]io.Reader{
		"text":    strings.NewReader("this is a shopping list, and no snapshot at all; it has some length, too, for good measure"),
		"image":   bytes.NewReader(append([]byte("\x89PNG\r\n\x1a\n"), make([]byte, 4096)...)),
		"zeros":   bytes.NewReader(make([]byte, 1000)),
		"ones":    bytes.NewReader(bytes.Repeat([]byte{0xff}, 1000)),
		"short":   strings.NewReader("x"),
		"nothing": strings.NewReader(""),
		"another": strings.NewReader("\x03\x12\x01\x00"),
	} {
		err := state.New().Restore(r)
		if err == nil || !strings.Contains(err.Error(), "it is not a snapshot of Atelier") || strings.Contains(err.Error(), "proto") || strings.Contains(err.Error(), "record") {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("the line is cut")
	if err := state.New().Restore(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("a stream that breaks: %v", err)
	}
}
