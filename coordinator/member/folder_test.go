package member_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"atelier/coordinator/member"
	"atelier/coordinator/replica"
)

func config(dir string, change func(*member.Config)) member.Config {
	c := member.Config{ID: "c1", Data: dir, API: "127.0.0.1:0", Raft: "127.0.0.1:0", Gossip: "127.0.0.1:0", Bootstrap: true, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&c)
	}
	return c
}

// TestFolder: what another process, another node or nobody wrote is refused with
// words that help, and the folder is free again afterwards.
func TestFolder(t *testing.T) {
	for name, x := range map[string]struct {
		file, text string
		change     func(*member.Config)
		want       string
	}{
		"no cluster":        {change: func(c *member.Config) { c.Bootstrap = false }, want: "give --bootstrap to begin one, or --join"},
		"another node":      {file: "node.json", text: `{"id":"c2"}`, want: "belongs to coordinator c2, not c1"},
		"damaged record":    {file: "node.json", text: `{"id":`, want: "is damaged"},
		"damaged identity":  {file: "raft/identity.json", text: `{"cluster_id":"c-a","folder_id":"f"}`, want: "identity.json is damaged"},
		"no folder":         {file: "place", text: "", change: func(c *member.Config) { c.Data = filepath.Join(c.Data, "place") }, want: "data folder"},
		"removed for good":  {file: "-removed", want: "it left"},
		"a folder of ours":  {file: "-identity"},
		"nothing there yet": {},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			raft := filepath.Join(dir, "raft")
			switch x.file {
			case "":
			case "-identity", "-removed":
				if err := replica.WriteIdentity(raft, replica.Identity{ClusterID: "c-a", FolderID: "f"}); err != nil {
					t.Fatal(err)
				}
				if x.file == "-removed" {
					if err := replica.MarkRemoved(raft, "it left"); err != nil {
						t.Fatal(err)
					}
				}
			default:
				os.MkdirAll(raft, 0o700)
				if err := os.WriteFile(filepath.Join(dir, x.file), []byte(x.text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // a refusal lets go of the folder
				m, err := member.Open(config(dir, x.change))
				if x.want != "" {
					if err == nil || !strings.Contains(err.Error(), x.want) {
						t.Errorf("%v, want %s", err, x.want)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if _, err := member.Open(config(dir, nil)); err == nil || !strings.Contains(err.Error(), "in use by another coordinator") {
					t.Errorf("a folder in use: %v", err)
				}
				m.Close(false)
			}
		})
	}
}

// TestHeldFolder: what raft may still write to stays locked.
func TestHeldFolder(t *testing.T) {
	dir := t.TempDir()
	m, err := member.Open(config(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	m.Close(true)
	if _, err := member.OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("it is free: %v", err)
	}
	runtime.KeepAlive(m)
}

// FuzzRecord: whatever node.json holds is read or refused, and what was read is
// written and read as the same.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"id":"c1","cluster_id":"c-a","raft":"127.0.0.1:1","seeds":["127.0.0.1:2"]}`))
	f.Add([]byte(`{"seeds":[null]}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "node.json"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		folder, err := member.OpenFolder(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer folder.Close()
		r, err := folder.Record()
		if err != nil {
			return
		}
		if err := folder.Remember(r); err != nil {
			t.Fatal(err)
		}
		again, err := folder.Record()
		if len(r.Seeds) == 0 && len(again.Seeds) == 0 {
			again.Seeds = r.Seeds
		}
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 2 { // and the lock
			t.Errorf("files: %v", left)
		}
		first, _ := os.ReadFile(filepath.Join(dir, "node.json"))
		folder.Remember(again)
		if second, _ := os.ReadFile(filepath.Join(dir, "node.json")); !bytes.Equal(first, second) {
			t.Errorf("%s then %s", first, second)
		}
	})
}
