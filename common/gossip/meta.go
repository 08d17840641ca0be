package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/hashicorp/memberlist"
)

// Roles of a node.
const (
	RoleCoordinator = "coordinator"
	RoleWorker      = "worker"
)

// Meta is what a node tells of itself. Encoded it may have at most 512 bytes.
type Meta struct {
	Role    string `json:"role"`              // RoleCoordinator or RoleWorker
	ID      string `json:"id"`                // coordinator id or worker name
	API     string `json:"api,omitempty"`     // HOST:PORT of a coordinator's API
	Raft    string `json:"raft,omitempty"`    // HOST:PORT of a coordinator's raft
	Files   string `json:"files,omitempty"`   // HOST:PORT of a worker's file server
	Cluster string `json:"cluster,omitempty"` // cluster id, once known
	Was     string `json:"was,omitempty"`     // id of the cluster that Cluster was recovered from
}

// encode is an error where it does not fit: gossip would cut it without a word.
func (m Meta) encode() ([]byte, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode gossip metadata: %w", err)
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("gossip metadata of %q has %d bytes, at most %d fit: use a shorter id or shorter host names", m.ID, len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// DecodeMeta reads what a peer told of itself. Fields it does not know are
// passed over, so that versions can live together.
func DecodeMeta(b []byte) (Meta, error) {
	if len(b) > memberlist.MetaMaxSize {
		return Meta{}, fmt.Errorf("gossip metadata has %d bytes, at most %d are allowed", len(b), memberlist.MetaMaxSize)
	}
	var m Meta
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return Meta{}, fmt.Errorf("decode gossip metadata: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Meta{}, fmt.Errorf("decode gossip metadata: bytes after the object")
	}
	if m.Role != RoleCoordinator && m.Role != RoleWorker {
		return Meta{}, fmt.Errorf("decode gossip metadata: role %q is neither %s nor %s", m.Role, RoleCoordinator, RoleWorker)
	}
	if m.ID == "" {
		return Meta{}, fmt.Errorf("decode gossip metadata: no id")
	}
	return m, nil
}
