package board_test

import (
	"strings"
	"testing"

	"atelier/common/secret"
	"atelier/coordinator/board"
)

// Whatever is wrong with an address, its password is in no error.
func TestAddresses(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:6379":                        "",
		"redis://127.0.0.1:6379/2":              "",
		"redis://reader@127.0.0.1:6379/2":       "",
		"rediss://u:secret@redis.example/0":     "",
		"redis://:secret@127.0.0.1:6379":        "",
		"redis-host":                            "want HOST:PORT",
		"u:secret@host:6379":                    "want HOST:PORT",
		"redis://u:sec/secret@127.0.0.1:6379":   "redis://u:xxxxx@127.0.0.1:6379",
		"redis://u:%secret@127.0.0.1:6379":      "escaped",
		"redis://u:secret@127.0.0.1:6379/a":     "escaped",
		"redis://u:a@secret@127.0.0.1:x":        "redis://u:xxxxx@127.0.0.1:x",
		"http://u:secret@127.0.0.1:6379":        "redis://USER@HOST:PORT/DB",
		"redis://127.0.0.1:6379/a":              "invalid database number",
		"redis://u:secret@127.0.0.1:6379?pool=": "escaped",
	} {
		r, err := board.Open(board.Options{Addr: addr, Prefix: "t:"})
		if err == nil {
			r.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password shows: %v", addr, err)
		}
		if strings.Contains(board.Mask(addr), "secret") && strings.Contains(addr, "://") {
			t.Errorf("Mask(%s) = %s", addr, board.Mask(addr))
		}
	}
	if _, err := board.Open(board.Options{Addr: "redis://:one@h:1", Password: secret.New("two")}); err == nil || strings.Contains(err.Error(), "two") || strings.Contains(err.Error(), "one@") {
		t.Errorf("two passwords: %v", err)
	}
	for addr, want := range map[string]bool{"redis://u@h:1": false, "redis://u:p@h:1": true, "redis://:p@h:1": true, "h:1": false} {
		if board.Password(addr) != want {
			t.Errorf("Password(%s) = %v", addr, !want)
		}
	}
}
