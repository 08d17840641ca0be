package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/files"
)

// folderID returns the id of a data folder, which is drawn at its first use: the
// name of a worker belongs to it, so that two machines do not share a name
// unnoticed. The folder must be locked.
func folderID(data string) (string, error) {
	file := filepath.Join(data, "folder-id")
	b, err := os.ReadFile(file)
	if err == nil {
		if id := strings.TrimSpace(string(b)); validFolderID(id) {
			return id, nil
		}
		return "", fmt.Errorf("--data %s: folder-id contains %.40q, not 32 hexadecimal digits; delete the file, and a new one is drawn", data, b)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--data: %w", err)
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("--data %s: draw an id: %w", data, err)
	}
	text := hex.EncodeToString(id[:])
	if err := files.Write(file, []byte(text+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("--data: %w", err)
	}
	return text, nil
}

func validFolderID(id string) bool {
	b, err := hex.DecodeString(id)
	return err == nil && len(b) == 16
}
