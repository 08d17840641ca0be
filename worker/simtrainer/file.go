package simtrainer

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A checkpoint is one line, "atelier-sim 1 EPOCH", and padding.
const magic = "atelier-sim 1 "

func encodeCheckpoint(epoch, size int) []byte {
	b := []byte(magic + strconv.Itoa(epoch) + "\n")
	if pad := size - len(b); pad > 0 {
		b = append(b, bytes.Repeat([]byte{byte(epoch)}, pad)...)
	}
	return b
}

// readCheckpoint returns the epoch a checkpoint was written at.
func readCheckpoint(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return decodeCheckpoint(f)
}

func decodeCheckpoint(r io.Reader) (int, error) {
	head := make([]byte, len(magic)+12)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, fmt.Errorf("not a checkpoint of the simulated trainer: %w", err)
	}
	rest, ok := strings.CutPrefix(string(head[:n]), magic)
	number, _, end := strings.Cut(rest, "\n")
	epoch, err := strconv.Atoi(number)
	if !ok || !end || err != nil || epoch < 1 {
		return 0, fmt.Errorf("not a checkpoint of the simulated trainer: it begins with %.30q", head[:n])
	}
	return epoch, nil
}
