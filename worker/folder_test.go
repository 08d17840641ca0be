package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFolderIDStays(t *testing.T) {
	dir := t.TempDir()
	first, err := folderID(dir)
	if err != nil || !validFolderID(first) {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := folderID(dir); again != first || err != nil {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	if other, _ := folderID(t.TempDir()); other == first {
		t.Errorf("two folders have the id %s", first)
	}
	if err := os.WriteFile(filepath.Join(dir, "folder-id"), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := folderID(dir); err == nil || !strings.Contains(err.Error(), "delete the file") {
		t.Errorf("a damaged id: %v", err)
	}
}
