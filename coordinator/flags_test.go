package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"atelier/common/gossip"
)

func TestFlagsAreChecked(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"--id= --data d", "--id is required"},
		{"--id a", "--data is required"},
		{"--id a/b --data d", `--id "a/b"`},
		{"--id a --data d --api 0.0.0.0:7600", "--insecure"},
		{"--id a --data d --raft 10.0.0.1:7601", "--insecure"},
		{"--id a --data d --api 0.0.0.0:7600 --insecure", "--advertise"},
		{"--id a --data d --api 127.0.0.1", "HOST:PORT"},
		{"--id a --data d --join 127.0.0.1", "--join"},
		{"--id a --data d --log-level loud", "loud"},
		{"--id a --data d --lease-ttl 1ms", "--lease-ttl"},
		{"--id a --data d extra", `"extra"`},
		{"--id a --data d --colour", "colour"},
	} {
		m := &Main{Stderr: &bytes.Buffer{}}
		err := m.ParseFlags(append([]string{"atelier-coordinator"}, strings.Fields(c.args)...))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want word of %s", c.args, err, c.says)
		}
	}
	m := &Main{Stderr: &bytes.Buffer{}}
	t.Setenv("ATELIER_COORDINATOR_LEASE_TTL", "3s")
	t.Setenv("ATELIER_COORDINATOR_REDIS_PREFIX", "env:")
	if err := m.ParseFlags(strings.Fields("x --id a --data d --api 0.0.0.0:1 --insecure --advertise h --join a:1,b:2 --redis-prefix flag:")); err != nil {
		t.Fatal(err)
	}
	if c := m.Config; c.LeaseTTL != 3*time.Second || c.RedisPrefix != "flag:" || len(c.Join) != 2 || c.Gossip != "127.0.0.1:7602" {
		t.Errorf("read as %+v", c)
	}
}

func TestExitCodes(t *testing.T) {
	var out bytes.Buffer
	if code := run([]string{"atelier-coordinator", "--help"}, &out); code != 0 || !strings.Contains(out.String(), "--bootstrap") {
		t.Errorf("help: %d\n%s", code, out.String())
	}
	if code := run([]string{"atelier-coordinator"}, &out); code != 2 {
		t.Errorf("no flags: %d", code)
	}
	out.Reset()
	dir := t.TempDir()
	args := []string{"atelier-coordinator", "--id", "a", "--data", dir, "--api", "127.0.0.1:0", "--raft", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}
	if code := run(args, &out); code != 1 || !strings.Contains(out.String(), "--bootstrap") {
		t.Errorf("neither bootstrap nor join: %d %s", code, out.String())
	}
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o600)
	args[4] = file
	if code := run(args, &out); code != 1 || !strings.Contains(out.String(), "data folder") {
		t.Errorf("a file as data folder: %d %s", code, out.String())
	}
}

func TestGossipKeyFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for text, want := range map[string]int{
		"0123456789abcdef0123456789abcdef\n":             16, // hex
		"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n": 32, // base64
		"sixteen raw byte":                               16,
		"short":                                          0,
	} {
		os.WriteFile(file, []byte(text), 0o600)
		k, err := gossip.ReadKey(file)
		if n := len(bytes.Join(k, nil)); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q gave %d bytes, %v", text, n, err)
		}
	}
}
