package member

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"atelier/common/access"
	"atelier/common/files"
	logv1 "atelier/common/proto/log/v1"
	"atelier/common/secret"
	"atelier/coordinator/state"
)

// adminFile, in tls/ of the data folder, has the text of the token of a closed cluster's first
// admin: on the coordinator that began the cluster, for its own user alone.
const adminFile = "admin.token"

// AdminFile is where a coordinator with that data folder keeps the first admin's token.
func AdminFile(data string) string { return filepath.Join(TLSFolder(data), adminFile) }

// firstAdmin makes the first admin's token, in a closed cluster that has none. The file comes before
// the log: whatever happens between them, the next leader's start ends with a token that somebody
// has. A cluster that ever had a token keeps it listed, so this never brings a revoked one back.
func (m *Member) firstAdmin(ctx context.Context) error {
	if m.store == nil {
		return nil
	}
	if len(m.machine.View().Tokens()) > 0 {
		m.LeaveLogin() // by now it is known whether the token is still good
		return nil
	}
	token, err := m.adminToken()
	if err != nil {
		return err
	}
	res, err := m.node.Propose(ctx, &logv1.Command{TimeMs: time.Now().UnixMilli(), Op: &logv1.Command_CreateToken{CreateToken: state.NewToken(token, "first-admin", access.Admin, 0)}})
	if err = errors.Join(err, res.Err); err != nil {
		return fmt.Errorf("the first admin's token: %w", err)
	}
	m.log.Info("the cluster has its first admin, whose token is in a file", "token", token.ID, "file", AdminFile(m.cfg.Data))
	m.LeaveLogin()
	return nil
}

// adminToken is the token of the file, which is made where there is none. A cluster that begins makes it before it
// serves, so that its user's first command finds it.
func (m *Member) adminToken() (access.Credential, error) {
	file := AdminFile(m.cfg.Data)
	token, err := readAdmin(file)
	if errors.Is(err, fs.ErrNotExist) {
		token = access.NewToken()
		err = files.Write(file, []byte(token.Text()+"\n"), 0o600)
	}
	if err != nil {
		return token, fmt.Errorf("the first admin's token: %w", err)
	}
	return token, nil
}

// readAdmin reads the token that the file has.
func readAdmin(file string) (access.Credential, error) {
	text, err := secret.FromFile(file)
	if err != nil {
		return access.Credential{}, err
	}
	token, err := access.Parse(text.Reveal())
	if err != nil {
		err = fmt.Errorf("%s: %w", file, err)
	}
	return token, err
}

// LeaveLogin lets the user that this coordinator runs as speak to it from this machine without
// anything to do: where its API is on the loopback, and it has the first admin's token, which is
// good. Else it takes away what another cluster may have left at this port.
func (m *Member) LeaveLogin() {
	host, port, err := net.SplitHostPort(m.addresses.API)
	ip := net.ParseIP(host)
	settings := access.Settings(os.Getenv)
	if err != nil || ip == nil || !ip.IsLoopback() || settings == "" {
		return
	}
	var token access.Credential
	good := m.store != nil
	if good {
		token, err = readAdmin(AdminFile(m.cfg.Data))
		known, found := m.machine.View().Token(token.ID)
		good = err == nil && !(found && known.Why(time.Now().UnixMilli()) != "")
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	switch {
	case good:
		err = access.WriteLogin(settings, port, access.Login{Addr: m.addresses.API, CA: string(m.store.Trusted().PEM()), Token: secret.New(token.Text())})
	case err == nil:
		err = access.RemoveLogin(settings, port)
	}
	if err != nil {
		m.log.Warn("the login for this machine's user was not written", "folder", access.LocalLogins(settings), "error", err)
	}
}
