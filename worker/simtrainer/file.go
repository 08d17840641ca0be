package simtrainer

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// A checkpoint is one line, "atelier-sim 1 EPOCH"; of a training of several shards
// another, "state SHA256 WEIGHTS"; and padding.
const (
	magic     = "atelier-sim 1 "
	stateMark = "state "
)

// encodeCheckpoint has at least so many bytes. w are nil with one shard.
func encodeCheckpoint(epoch, size int, w *weights) []byte {
	b := []byte(magic + strconv.Itoa(epoch) + "\n")
	if w != nil {
		b = append(b, stateMark+w.hash()+" "+hex.EncodeToString(w.bytes())+"\n"...)
	}
	if pad := size - len(b); pad > 0 {
		b = append(b, bytes.Repeat([]byte{byte(epoch)}, pad)...)
	}
	return b
}

// readCheckpoint returns the epoch a checkpoint was written at, and the weights,
// nil with one shard.
func readCheckpoint(path string) (int, *weights, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	return decodeCheckpoint(f)
}

func decodeCheckpoint(r io.Reader) (int, *weights, error) {
	head := make([]byte, len(magic)+12+len(stateMark)+64+1+8*nWeights+1)
	n, err := io.ReadFull(r, head)
	if err != nil && err != io.ErrUnexpectedEOF {
		return 0, nil, fmt.Errorf("not a checkpoint of the simulated trainer: %w", err)
	}
	rest, ok := strings.CutPrefix(string(head[:n]), magic)
	number, rest, end := strings.Cut(rest, "\n")
	epoch, err := strconv.Atoi(number)
	if !ok || !end || err != nil || epoch < 1 || len(number) > 11 {
		return 0, nil, fmt.Errorf("not a checkpoint of the simulated trainer: it begins with %.30q", head[:n])
	}
	rest, ok = strings.CutPrefix(rest, stateMark)
	if !ok {
		return epoch, nil, nil
	}
	line, _, _ := strings.Cut(rest, "\n")
	sum, text, _ := strings.Cut(line, " ")
	b, err := hex.DecodeString(text)
	w := new(weights)
	if err == nil {
		err = w.set(b)
	}
	if err != nil || w.hash() != sum {
		return 0, nil, fmt.Errorf("checkpoint of epoch %d: its state is damaged", epoch)
	}
	return epoch, w, nil
}
