package replica

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever byte of the file changes, it says the same or that it is damaged.
func TestDamagedIdentity(t *testing.T) {
	for _, want := range []Identity{{ClusterID: "c-abcdefgh", FolderID: "f-abcdefghijklmnop"}, {ClusterID: "c-abcdefgh", FolderID: "f-abcdefghijklmnop", Removed: "it was taken off \u2014 <by hand>"}} {
		dir := t.TempDir()
		if err := WriteIdentity(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadIdentity(dir); err != nil || got != want {
			t.Fatalf("%+v, %v", got, err)
		}
		path := filepath.Join(dir, identityFile)
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole {
			for bit := range 8 {
				b := bytes.Clone(whole)
				b[at] ^= 1 << bit
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := ReadIdentity(dir)
				if err == nil && got != want {
					t.Errorf("byte %d, bit %d: it reads %+v\n%s", at, bit, got, b)
				}
				if err != nil && !(strings.Contains(err.Error(), "data folder "+dir) && strings.Contains(err.Error(), "is damaged")) {
					t.Errorf("byte %d, bit %d: %v", at, bit, err)
				}
			}
		}
	}
}
