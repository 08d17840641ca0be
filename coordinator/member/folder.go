package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"atelier/common/files"
	"atelier/coordinator/replica"
)

// Folder is the data folder, held by this process alone.
//
//	lock       held while the process lives
//	node.json  what the node remembers of itself beside the log
//	raft/      the replica's: the log, the votes, whose they are
//	tls/       of a closed cluster: the node's certificate, the cluster's authority, the keys of gossip
type Folder struct {
	dir  string
	lock *os.File
}

// Record is what a node remembers of itself beside the log: DIR/node.json.
type Record struct {
	ID        string   `json:"id"`
	ClusterID string   `json:"cluster_id,omitempty"` // for people: raft/identity.json decides
	Raft      string   `json:"raft,omitempty"`       // addresses last bound: taken again when ports are free to choose
	API       string   `json:"api,omitempty"`
	Gossip    string   `json:"gossip,omitempty"`
	Seeds     []string `json:"seeds,omitempty"` // gossip addresses of the other members
}

// OpenFolder makes the data folder where it is absent and takes hold of it.
func OpenFolder(dir string) (*Folder, error) {
	if err := files.CheckOwner(dir, files.Coordinator); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	f, err := files.Lock(filepath.Join(dir, "lock"), fmt.Errorf("data folder %s is in use by another coordinator: end it or give this one its own --data", dir))
	if owner := files.CheckOwner(dir, files.Coordinator); owner != nil { // one that began in an empty folder at the same time
		if err == nil {
			f.Close()
		}
		return nil, fmt.Errorf("--data: %w", owner)
	}
	if err != nil {
		return nil, err
	}
	return &Folder{dir: dir, lock: f}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() { f.lock.Close() }

// Raft is the replica's folder.
func (f *Folder) Raft() string { return filepath.Join(f.dir, "raft") }

// TLS is where the node's identity is, in a closed cluster.
func (f *Folder) TLS() string { return TLSFolder(f.dir) }

// TLSFolder is where the identity of a coordinator with that data folder is.
func TLSFolder(data string) string { return filepath.Join(data, "tls") }

// Record reads node.json; the zero Record when there is none.
func (f *Folder) Record() (Record, error) {
	path := filepath.Join(f.dir, "node.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Record{}, nil
	}
	if err != nil {
		return Record{}, err
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("%s is damaged (%v): remove it; the node knows itself by its raft folder, and finds the others again by --join", path, err)
	}
	return r, nil
}

// Remember writes node.json.
func (f *Folder) Remember(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(f.dir, "node.json")
	if now, err := os.ReadFile(path); err == nil && string(now) == string(b)+"\n" {
		return nil // a full disk is no reason not to start
	}
	return files.Write(path, append(b, '\n'), 0o600)
}

// identify reads which cluster the folder belongs to, "" for none. Folders of
// earlier versions do not name it beside the log: their own log is asked, and
// nobody else.
func (f *Folder) identify(node string) (string, error) {
	id, err := replica.ReadIdentity(f.Raft())
	if err != nil {
		return "", err
	}
	if id.Removed != "" {
		return "", &replica.RemovedError{Why: id.Removed}
	}
	if id.ClusterID != "" {
		return id.ClusterID, nil
	}
	if _, err := os.Stat(filepath.Join(f.Raft(), "node")); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	found, err := examine(f.Raft())
	switch {
	case err != nil:
		return "", err
	case found.ID != node:
		return "", f.belongs(found.ID, node)
	case found.ClusterID != "":
		return found.ClusterID, nil
	case len(found.Members) == 1 && found.Members[0].ID == found.ID:
		return newClusterID(), nil // it began a cluster and has not led it yet
	}
	return "", nil
}

// belongs is the refusal of a folder that is another node's.
func (f *Folder) belongs(owner, node string) error {
	return fmt.Errorf("data folder %s belongs to coordinator %s, not %s: give each its own --data", f.dir, owner, node)
}

// examine reads a folder of a node that does not run.
func examine(dir string) (replica.Found, error) {
	s, err := replica.Examine(dir, nil)
	if err != nil {
		return replica.Found{}, err
	}
	defer s.Close()
	return s.Read()
}

// Recover makes the stopped coordinator of a data folder the only member of a new
// cluster, once agree has seen what the folder holds.
func Recover(data string, agree func(replica.Found) error) (found replica.Found, clusterID string, err error) {
	if _, err := os.Stat(filepath.Join(data, "raft")); err != nil {
		return found, "", fmt.Errorf("%s is not a data folder of a coordinator: %w", data, err)
	}
	f, err := OpenFolder(data)
	if err != nil {
		return found, "", err
	}
	defer f.Close()
	self, err := f.Record()
	if err != nil {
		return found, "", err
	}
	s, err := replica.Examine(f.Raft(), nil)
	if err != nil {
		return found, "", err
	}
	defer s.Close()
	if found, err = s.Read(); err != nil {
		return found, "", err
	}
	if err := agree(found); err != nil {
		return found, "", err
	}
	clusterID = newClusterID()
	if err := s.Recover(clusterID); err != nil {
		return found, "", err
	}
	self.ID, self.ClusterID = found.ID, clusterID
	return found, clusterID, f.Remember(self)
}
