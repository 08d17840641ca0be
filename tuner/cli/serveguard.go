package cli

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"atelier/common/secret"
	"atelier/common/webguard"
	"atelier/tuner/serve"

	ucli "github.com/urfave/cli/v2"
)

// servedAt is where a web app listens and under what names it is asked for.
type servedAt struct {
	hosts webguard.Hosts
	port  int
	tls   *tls.Config // nil: plain HTTP
}

// base is what links to the web app begin with.
func (s *servedAt) base() string {
	scheme := "http"
	if s.tls != nil {
		scheme = "https"
	}
	return scheme + "://" + net.JoinHostPort(s.hosts.Best(), strconv.Itoa(s.port))
}

// servedAt puts together what the flags give about an address. The names of a certificate are names of the server.
func (e *Env) servedAt(c *ucli.Context, listen net.Addr) (*servedAt, error) {
	names := c.StringSlice("host")
	at := &servedAt{}
	if c.IsSet("tls-cert") {
		pair, err := tls.LoadX509KeyPair(e.path(c.String("tls-cert")), e.path(c.String("tls-key")))
		if err != nil {
			return nil, fmt.Errorf("serve: --tls-cert, --tls-key: %w", err)
		}
		names = append(names, slices.DeleteFunc(slices.Clone(pair.Leaf.DNSNames), func(n string) bool { return strings.Contains(n, "*") })...)
		at.tls = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	}
	hosts, err := webguard.NewHosts(listen, names...)
	if err != nil {
		return nil, usage("serve: --host: %s", err)
	}
	at.hosts, at.port = hosts, listen.(*net.TCPAddr).Port
	return at, nil
}

// checkServedAt refuses flags that do not fit each other. An address that others reach wants TLS, or --insecure.
func checkServedAt(c *ucli.Context) error {
	host, _, err := net.SplitHostPort(c.String("listen"))
	if err != nil {
		return usage("serve: --listen %s: want HOST:PORT, such as %s", c.String("listen"), defaultServe)
	}
	if c.IsSet("tls-cert") != c.IsSet("tls-key") {
		return usage("serve: give both --tls-cert and --tls-key")
	}
	ip := net.ParseIP(host)
	local := host == "localhost" || ip != nil && ip.IsLoopback()
	if !local && !c.Bool("insecure") && !c.IsSet("tls-cert") {
		return usage("serve: --listen %s can be reached by others, without TLS: give --tls-cert and --tls-key, or --insecure if that is intended", c.String("listen"))
	}
	return nil
}

// tokenFile is where the token of a web app is: the one that --token-file names, else one of this user for this address.
func (e *Env) tokenFile(c *ucli.Context, listen net.Addr) (file string, named bool, err error) {
	if c.IsSet("token-file") {
		return e.path(c.String("token-file")), true, nil
	}
	config := e.contextsFile()
	if config == "" {
		return "", false, usage("serve: there is no home folder for the token: name a file with --token-file")
	}
	host, port, err := net.SplitHostPort(listen.String())
	if err != nil {
		return "", false, err
	}
	return filepath.Join(filepath.Dir(config), "serve", strings.NewReplacer(":", "_", "%", "_").Replace(host)+"-"+port+".token"), false, nil
}

// servedToken takes the token that a file has, or makes one. A file that nobody named is written at each start and
// removed by done.
func (e *Env) servedToken(c *ucli.Context, listen net.Addr) (token secret.Text, file string, done func(), err error) {
	file, named, err := e.tokenFile(c, listen)
	if err != nil {
		return token, "", nil, err
	}
	done = func() {}
	if named {
		if token, err = webguard.ReadToken(file); !errors.Is(err, fs.ErrNotExist) {
			return token, file, done, inFlag("token-file", err)
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return token, "", nil, fmt.Errorf("serve: the token's folder: %w; name another file with --token-file", err)
		}
		done = func() { os.Remove(file) }
	}
	token = webguard.NewToken()
	return token, file, done, inFlag("token-file", webguard.WriteToken(file, token))
}

// inFlag puts the command and a flag before an error, if there is one.
func inFlag(flag string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("serve: --%s: %w", flag, err)
}

// serveLink prints a link that signs one browser in to the web app that runs with the same flags.
func (e *Env) serveLink(c *ucli.Context) error {
	listen, err := net.ResolveTCPAddr("tcp", c.String("listen"))
	if err != nil || listen.Port == 0 {
		return usage("serve: --link: want the --listen HOST:PORT of the web app that runs")
	}
	if listen.IP == nil {
		listen.IP = net.IPv6unspecified // as its listener has it
	}
	at, err := e.servedAt(c, listen)
	if err != nil {
		return err
	}
	file, _, err := e.tokenFile(c, listen)
	if err != nil {
		return err
	}
	token, err := webguard.ReadToken(file)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound("serve: --link: there is no token in %s: start `atelier serve --listen %s` first, as this user", file, c.String("listen"))
	}
	if err != nil {
		return inFlag("link", err)
	}
	there, err := net.DialTimeout("tcp", listen.String(), 5*time.Second)
	if err != nil {
		return notFound("serve: --link: no web app answers: %s; start `atelier serve --listen %s`", err, c.String("listen"))
	}
	there.Close()
	fmt.Fprintln(e.Out, webguard.Link(at.base(), token, e.Now()))
	return nil
}

// announceServed shows how a person and a program get in.
func (e *Env) announceServed(at *servedAt, token secret.Text, file string) {
	e.say("open %s (end with Ctrl-C)", webguard.Link(at.base(), token, e.Now()))
	e.say("The link signs in one browser, within %d minutes; `%s` prints another. For programs: curl -H @%s %s/api/checkpoints",
		int(webguard.LinkLife.Minutes()), serve.Again, quoted(file), at.base())
}
