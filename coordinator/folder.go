package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"atelier/common/files"
)

// folder is the data folder, held by this process alone.
type folder struct {
	dir  string
	lock *os.File
}

// identity is what a node remembers of itself beside the log: DIR/node.json.
type identity struct {
	ID        string   `json:"id"`
	ClusterID string   `json:"cluster_id,omitempty"` // for people: raft/identity.json decides
	Raft      string   `json:"raft,omitempty"`       // addresses last bound: taken again when ports are free to choose
	API       string   `json:"api,omitempty"`
	Gossip    string   `json:"gossip,omitempty"`
	Seeds     []string `json:"seeds,omitempty"` // gossip addresses of the other members
}

func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	f, err := files.Lock(filepath.Join(dir, "lock"), fmt.Errorf("data folder %s is in use by another coordinator: end it or give this one its own --data", dir))
	if err != nil {
		return nil, err
	}
	return &folder{dir: dir, lock: f}, nil
}

func (f *folder) close() { f.lock.Close() }

// identity reads node.json; the zero identity when there is none.
func (f *folder) identity() (identity, error) {
	path := filepath.Join(f.dir, "node.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return identity{}, nil
	}
	if err != nil {
		return identity{}, err
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return identity{}, fmt.Errorf("%s is damaged (%v): remove it; the node knows itself by its raft folder, and finds the others again by --join", path, err)
	}
	return id, nil
}

func (f *folder) remember(id identity) error {
	return writeJSON(filepath.Join(f.dir, "node.json"), id)
}

// writeJSON replaces a file in one step.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if now, err := os.ReadFile(path); err == nil && string(now) == string(b)+"\n" {
		return nil // a full disk is no reason not to start
	}
	return files.Write(path, append(b, '\n'), 0o600)
}

// listen binds addr. With port 0 it takes the port it had before, if that is
// free: a cluster whose nodes all come back elsewhere could not find a majority.
func listen(addr, before string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if port == "0" && before != "" {
		if _, old, err := net.SplitHostPort(before); err == nil {
			if l, err := net.Listen("tcp", net.JoinHostPort(host, old)); err == nil {
				return l, nil
			}
		}
	}
	return net.Listen("tcp", addr)
}

// gossipBind is listen's rule for gossip, which binds for itself.
func gossipBind(addr, before string) string {
	l, err := listen(addr, before)
	if err != nil {
		return addr
	}
	defer l.Close()
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" || before == "" {
		return addr
	}
	return net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// reachable is where others find a listener.
func reachable(l net.Listener, bind, advertise string) string {
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if advertise != "" {
		return net.JoinHostPort(advertise, port)
	}
	host, _, _ := net.SplitHostPort(bind)
	return net.JoinHostPort(host, port)
}

// readKey reads a gossip key: the bytes themselves, or in hex or base64.
func readKey(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--gossip-key-file: %w", err)
	}
	ok := func(b []byte) bool { return len(b) == 16 || len(b) == 24 || len(b) == 32 }
	text := strings.TrimSpace(string(b))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if k, err := decode(text); err == nil && ok(k) {
			return k, nil
		}
	}
	for _, raw := range [][]byte{b, []byte(text)} {
		if ok(raw) {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("--gossip-key-file %s: want 16, 24 or 32 bytes, raw or in hex or base64; `openssl rand -base64 32` makes one", path)
}
