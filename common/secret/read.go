package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
)

// mostBytes of a secret in a file.
const mostBytes = 64 << 10

// OpenError says that others can read a file of a secret.
type OpenError struct {
	File string
	Mode fs.FileMode
}

func (e *OpenError) Error() string {
	return fmt.Sprintf("%s can be read or written by others (mode %04o): chmod 600 %s", e.File, e.Mode, e.File)
}

// FromFile reads a secret of one line from a file; the line's end is no part of it.
// A file that others can read is an *OpenError. No error holds any of what the file holds.
func FromFile(file string) (Text, error) {
	b, err := ReadFile(file)
	if err != nil {
		return Text{}, err
	}
	text := strings.TrimRight(string(b), "\r\n")
	if text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return Text{}, fmt.Errorf("%s: want one line, the secret", file)
	}
	return New(text), nil
}

// ReadFile reads a file that others must not read, such as a key, of 64 KiB at most. A pipe
// is good too: --password-file <(pass show redis).
func ReadFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder", file)
	}
	if seen(info) {
		return nil, &OpenError{file, info.Mode().Perm()}
	}
	b, err := io.ReadAll(io.LimitReader(f, mostBytes+1))
	if err == nil && len(b) > mostBytes {
		err = errors.New("longer than 64 KiB: it cannot be a secret")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// seen reports whether others than its owner can read or write a file. A group may read
// one of root's: so do service managers hand a secret to a service (systemd's LoadCredential).
func seen(info fs.FileInfo) bool {
	mode := info.Mode().Perm() & 0o077
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == 0 && os.Geteuid() != 0 {
		mode &^= 0o040
	}
	return mode != 0
}

// Variables are all that may hold a secret. Programs hide them (HideEnvironment) before
// they start anything; each reads those that it needs by FromEnv.
var Variables = []string{
	"ATELIER_REDIS_PASSWORD",
	"ATELIER_COORDINATOR_REDIS", // an address may hold a password
	"ATELIER_NOTIFY",            // the address of a webhook is a secret
	"ATELIER_TOKEN",
	"MLFLOW_TRACKING_PASSWORD",
	"MLFLOW_TRACKING_TOKEN",
	"MLFLOW_TRACKING_URI", // an address again
	"SERPAPI_API_KEY",
	"SERPAPI_KEY",
}

// hidden is what was taken out of the environment, by name. The environment is the process's,
// so this is, too.
var hidden = struct {
	sync.Mutex
	texts map[string]Text
}{texts: map[string]Text{}}

// FromEnv takes a secret from an environment variable, and takes the variable out of the
// environment: children do not inherit it. Asked again it gives the same.
func FromEnv(name string) Text {
	hidden.Lock()
	defer hidden.Unlock()
	if text, ok := os.LookupEnv(name); ok {
		hidden.texts[name] = New(text)
		os.Unsetenv(name)
	}
	return hidden.texts[name]
}

// HideEnvironment takes all Variables out of the environment: what the program starts does
// not inherit them. FromEnv still gives them.
func HideEnvironment() {
	for _, name := range Variables {
		FromEnv(name)
	}
}
