package mlflow

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// record is one line of a journal: "CRC32-in-hex JSON\n". The first line is a
// head; entries and marks follow in the order in which they came. Entries have no number of their own:
// the n-th entry of the file is entry n, and marks name entries by it.
type record struct {
	Head  *head  `json:"head,omitempty"`
	Entry *entry `json:"entry,omitempty"`
	Sent  int64  `json:"sent,omitempty"`  // entries up to this one may have gone out
	Done  int64  `json:"done,omitempty"`  // entries up to this one need nothing more
	Made  bool   `json:"made,omitempty"`  // runs/create may have gone out
	Run   string `json:"run,omitempty"`   // the run's id is known
	Where string `json:"where,omitempty"` // its artifact_uri
}

// head says whose journal it is, and all that runs/create needs: a program that adopts the journal makes
// the run if its own program could not.
type head struct {
	Version    int               `json:"version"`  // 1
	Store      string            `json:"store"`    // address without credentials
	Identity   string            `json:"identity"` // 32 hexadecimal digits; the run carries it as a tag
	Experiment string            `json:"experiment"`
	Name       string            `json:"name"`
	User       string            `json:"user"`
	Start      int64             `json:"start"` // Unix milliseconds
	Tags       map[string]string `json:"tags"`
	Parent     string            `json:"parent,omitempty"`     // identity of the parent, while its id was not known
	ParentExp  string            `json:"parent_exp,omitempty"` // its experiment
	RunID      string            `json:"run_id,omitempty"`     // a run that was there before
}

const journalVersion = 1

// maxLine bounds a journal's line: parameters are cut to far less.
const maxLine = 4 << 20

// encodeRecord writes one line. The checksum tells a line that a crash cut off, or a disk spoilt,
// from one that may be acted upon.
func encodeRecord(r record) ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.ChecksumIEEE(b), b), nil
}

// errTorn ends the reading of a journal: whatever stands behind such a line was never acted upon.
var errTorn = errors.New("a line is torn")

// decodeRecord reads one line, with its newline.
func decodeRecord(line []byte) (record, error) {
	var r record
	if len(line) < 10 || line[8] != ' ' || line[len(line)-1] != '\n' {
		return r, errTorn
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	body := line[9 : len(line)-1]
	if err != nil || uint32(sum) != crc32.ChecksumIEEE(body) {
		return r, errTorn
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("%w: %w", errTorn, err)
	}
	if e := r.Entry; e != nil && e.Metric != "" {
		if e.Value, err = parsePython(e.Text); err != nil {
			return r, fmt.Errorf("%w: %w", errTorn, err)
		}
	}
	return r, nil
}
