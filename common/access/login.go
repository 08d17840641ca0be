package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"atelier/common/files"
	"atelier/common/secret"
)

// Login is what makes a person known to a cluster: which authority to believe, and a token. A
// coordinator that begins a closed cluster on the loopback of a machine leaves one for the user it
// runs as, so that this user has nothing to do, and others of the machine get nothing.
type Login struct {
	Addr  string      // HOST:PORT of a coordinator
	CA    string      // PEM: certificates of the cluster's authorities
	Token secret.Text // may be absent
}

// loginFile is a Login as it is kept.
type loginFile struct {
	Addr  string `json:"addr"`
	CA    string `json:"ca"`
	Token string `json:"token"`
}

// maxLogin bounds a file of a Login, in bytes.
const maxLogin = 64 << 10

// loginName is the name of such a file: the port of the API.
var loginName = regexp.MustCompile(`^[0-9]{1,5}\.json$`)

// LocalLogins is the folder of the logins that coordinators of this machine leave for a user, below
// the user's folder of settings.
func LocalLogins(settings string) string { return filepath.Join(settings, "local") }

// Settings is the folder of a user's settings; "" where the user has no home.
func Settings(environ func(string) string) string {
	if dir := environ("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "atelier")
	}
	if home := environ("HOME"); home != "" {
		return filepath.Join(home, ".config", "atelier")
	}
	return ""
}

// WriteLogin leaves a login of the API at a port for the own user alone.
func WriteLogin(settings, port string, l Login) error {
	dir := LocalLogins(settings)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(loginFile{l.Addr, l.CA, l.Token.Reveal()}, "", "  ")
	if err != nil {
		return err
	}
	return files.Write(filepath.Join(dir, port+".json"), append(b, '\n'), 0o600)
}

// RemoveLogin takes away what an earlier cluster left at the port.
func RemoveLogin(settings, port string) error {
	err := os.Remove(filepath.Join(LocalLogins(settings), port+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ReadLogin is the login for the API at a port of this machine; where none was left for that port,
// the only one there is. ok is false where there is none, or several of other ports.
func ReadLogin(settings, port string) (l Login, ok bool, err error) {
	if settings == "" {
		return l, false, nil
	}
	entries, err := os.ReadDir(LocalLogins(settings))
	if errors.Is(err, fs.ErrNotExist) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	var names []string
	for _, e := range entries {
		if loginName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	name := port + ".json"
	switch {
	case slices.Contains(names, name):
	case len(names) == 1:
		name = names[0]
	default:
		return l, false, nil
	}
	file := filepath.Join(LocalLogins(settings), name)
	b, err := secret.ReadFile(file)
	if err != nil {
		return l, false, err
	}
	l, err = decodeLogin(b)
	if err != nil {
		return l, false, fmt.Errorf("%s: %w", file, err)
	}
	return l, true, nil
}

// decodeLogin reads the text of a file. Its errors have nothing of the text.
func decodeLogin(b []byte) (Login, error) {
	var f loginFile
	if len(b) > maxLogin || json.Unmarshal(b, &f) != nil || f.CA == "" {
		return Login{}, errors.New("not a login that a coordinator has left")
	}
	if f.Token != "" {
		if _, err := Parse(f.Token); err != nil {
			return Login{}, err
		}
	}
	return Login{Addr: f.Addr, CA: f.CA, Token: secret.New(f.Token)}, nil
}
