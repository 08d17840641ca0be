package replica

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
)

// Identity says whose a data folder is. It stands beside the log and the votes,
// so that who wipes these wipes it too, and is on disk before raft begins.
type Identity struct {
	// ClusterID is the cluster whose log the folder holds.
	ClusterID string `json:"cluster_id"`
	// FolderID is random, made with the folder: the same node id in another
	// folder is another node, one that has forgotten its votes.
	FolderID string `json:"folder_id"`
	// Removed says why the folder may not be used any more; "" = it may.
	Removed string `json:"removed,omitempty"`
}

const identityFile = "identity.json"

// sealedIdentity is what the file holds: one changed letter of an id would make
// the folder another cluster's or another member's, or a removed one come back.
type sealedIdentity struct {
	Identity
	Sum string `json:"crc32c"` // of Identity in JSON
}

func (id Identity) sum() (string, error) {
	b, err := json.Marshal(id)
	return fmt.Sprintf("%08x", crc32.Checksum(b, castagnoli)), err
}

// ReadIdentity reads whose the folder of a node is; the zero Identity when that
// was not written yet.
func ReadIdentity(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Identity{}, nil
	}
	var id sealedIdentity
	if err == nil {
		err = json.Unmarshal(b, &id)
	}
	if err == nil && (id.ClusterID == "" || id.FolderID == "") {
		err = errors.New("it names no cluster or no folder")
	}
	if err == nil {
		var sum string
		if sum, err = id.Identity.sum(); err == nil && sum != id.Sum {
			err = errors.New("its CRC32C is not the one it was written with")
		}
	}
	if err != nil {
		return Identity{}, fmt.Errorf("data folder %s: %s is damaged (%w): restore it from a copy; without it the folder's votes have no known owner. `atelier cluster remove` of this node, an emptied folder and --join make a new member instead", dir, identityFile, err)
	}
	return id.Identity, nil
}

// WriteIdentity makes the folder where it is absent and writes whose it is. It
// returns when both are durable.
func WriteIdentity(dir string, id Identity) error {
	if id.ClusterID == "" || id.FolderID == "" {
		return fmt.Errorf("write identity of %s: cluster %q, folder %q: both are needed", dir, id.ClusterID, id.FolderID)
	}
	sum, err := id.sum()
	if err != nil {
		return err
	}
	b, err := json.Marshal(sealedIdentity{id, sum})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := files.Write(filepath.Join(dir, identityFile), append(b, '\n'), 0o600); err != nil {
		return err
	}
	return files.SyncDir(filepath.Dir(dir)) // the folder may be new
}

// settleIdentity makes sure that the folder is the configured cluster's, and
// gives a folder that has none its id.
func settleIdentity(cfg *Config) error {
	have, err := ReadIdentity(cfg.DataDir)
	if err != nil {
		return err
	}
	if have == (Identity{}) {
		cfg.folderID = newFolderID()
		return WriteIdentity(cfg.DataDir, Identity{ClusterID: cfg.ClusterID, FolderID: cfg.folderID})
	}
	cfg.folderID = have.FolderID
	switch {
	case have.Removed != "":
		return &RemovedError{have.Removed}
	case have.ClusterID != cfg.ClusterID:
		return fmt.Errorf("data folder %s is of cluster %s, not %s", cfg.DataDir, have.ClusterID, cfg.ClusterID)
	}
	return nil
}

func newFolderID() string {
	var b [10]byte
	rand.Read(b[:])
	return "f-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// MarkRemoved writes down that the folder may not be used any more.
func MarkRemoved(dir, why string) error {
	id, err := ReadIdentity(dir)
	if err != nil {
		return err
	}
	id.Removed = why
	return WriteIdentity(dir, id)
}

// RemovedError says that this node was taken off its cluster for good.
type RemovedError struct{ Why string }

func (e *RemovedError) Error() string { return e.Why }
