package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"atelier/common/access"
	"atelier/common/client"
	"atelier/common/identity"
	"atelier/common/secret"

	ucli "github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// loginPatience is how long login waits for a coordinator.
const loginPatience = 10 * time.Second

// loginCommand makes this person known to a closed cluster.
func (e *Env) loginCommand() *ucli.Command {
	return verb(&ucli.Command{Name: "login", Usage: "log in to a closed cluster with a token", ArgsUsage: "HOST:PORT[,..]",
		Description: "Asks for the token, unless --token-file or ATELIER_TOKEN has it, and keeps it with the cluster's\n" +
			"certificate in a context, in a file that its owner alone can read; the context is in use from\n" +
			"then on. The first time, the fingerprint of the cluster's authority has to be confirmed:\n" +
			"compare it with the one that its admin has (atelier context show), or give it by --fingerprint.\n" +
			"Where the cluster runs on this machine, under the same user, no login is needed.",
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "token-file", Usage: "`FILE` with the token, which others cannot read"},
			&ucli.StringFlag{Name: "fingerprint", Usage: "of the cluster's authority: `HEX` of the SHA-256 of its certificate"},
			&ucli.StringFlag{Name: "ca", Usage: "`FILE` with the certificate of the cluster's authority (tls/ca.crt of a coordinator)"},
			&ucli.StringFlag{Name: "name", Usage: "`NAME` of the context (default: the host)"},
		}, Action: e.login}, 1, 1,
		"atelier login c1.lab:7600", "atelier login c1.lab:7600 --token-file ~/atelier.token --fingerprint 3fc4...9b")
}

// login finds out which authority to believe, then shows it the token, then keeps both.
func (e *Env) login(c *ucli.Context) error {
	addrs, err := client.ParseAddrs(c.Args().First())
	if err != nil {
		return usage("login: %s", err)
	}
	name := cmp.Or(c.String("name"), hostOf(addrs[0]))
	if !contextName.MatchString(name) {
		return usage("login: %q cannot be the name of a context: give one with --name", name)
	}
	ctx, cancel := context.WithTimeout(c.Context, loginPatience)
	defer cancel()
	trusted, err := e.authorityOf(ctx, c, addrs[0])
	if err != nil {
		return err
	}
	token, err := e.tokenFor(c)
	if err != nil {
		return err
	}
	api := client.New(addrs, client.WithTLS(trusted.ClientTLS(nil)), client.WithToken(token), client.WithRetryFor(loginPatience))
	defer api.Close()
	who, err := api.WhoAmI(c.Context)
	if err != nil {
		return err
	}
	if who.Refused != "" || who.Name == "" {
		return &exitError{code: client.ExitRefused, text: "login: " + cmp.Or(who.Refused, "the cluster does not know the token")}
	}
	if err := e.changeContexts(c.Context, func(all *contexts) error {
		entry := all.Contexts[name]
		entry.Addr, entry.CA, entry.Token = strings.Join(addrs, ","), string(trusted.PEM()), token.Reveal()
		if all.Contexts == nil {
			all.Contexts = map[string]contextEntry{}
		}
		all.Contexts[name] = entry
		all.Current = name
		return nil
	}); err != nil {
		return err
	}
	until := ""
	if who.ExpiresMS != 0 {
		until = ", until " + time.UnixMilli(who.ExpiresMS).Format("2006-01-02 15:04")
	}
	e.say("logged in to cluster %s as %s, with the role %s%s; context %s is in use", trusted.Cluster(), who.Name, who.Role, until, name)
	return e.sayStronger()
}

// hostOf is the host of an address, for the name of a context.
func hostOf(addr string) string {
	if u, err := url.Parse(addr); err == nil && u.Host != "" {
		addr = u.Host
	}
	if host, _, err := net.SplitHostPort(addr); err == nil {
		return host
	}
	return addr
}

// hostPort is an address as TLS dials it.
func hostPort(addr string) string {
	_, rest, ok := strings.Cut(addr, "://")
	if !ok {
		return addr
	}
	if _, _, err := net.SplitHostPort(rest); err != nil {
		return net.JoinHostPort(rest, "443")
	}
	return rest
}

// authorityOf is the authority to believe: of a file, of a fingerprint, of a context of these addresses, or
// the one that the cluster shows and the person confirms.
func (e *Env) authorityOf(ctx context.Context, c *ucli.Context, addr string) (identity.Trusted, error) {
	if file := c.String("ca"); file != "" {
		text, err := os.ReadFile(e.path(file))
		if err != nil {
			return nil, err
		}
		trusted, err := identity.ParseTrusted(text)
		if err != nil {
			return nil, fmt.Errorf("login: --ca %s: %w", file, err)
		}
		return trusted, nil
	}
	shown, err := identity.Look(ctx, hostPort(addr))
	if err != nil {
		var refused *identity.RefusedError
		if errors.As(err, &refused) && refused.Why == identity.PlainText {
			return nil, fmt.Errorf("login: %s: the cluster is open and needs no login: atelier context set NAME --addr %[1]s --use", addr)
		}
		return nil, fmt.Errorf("login: %s: %w", addr, err)
	}
	have := shown.Fingerprint()
	if want := strings.ToLower(strings.ReplaceAll(c.String("fingerprint"), ":", "")); want != "" {
		if want != have {
			return nil, &exitError{code: client.ExitRefused, text: fmt.Sprintf("login: the cluster at %s has an authority with the fingerprint\n  %s, not\n  %s: another cluster, or another program, answers there", addr, have, want)}
		}
		return shown, nil
	}
	if all, err := e.readContexts(); err == nil {
		for _, name := range all.names() {
			if known, err := identity.ParseTrusted([]byte(all.Contexts[name].CA)); err == nil && slices.ContainsFunc(known, shown[0].Equal) {
				return known, nil
			}
		}
	}
	if !e.Ask {
		return nil, usage("login: the cluster at %s has an authority that is not known here, with the fingerprint %s: compare it with the one that the cluster's admin has, then give --fingerprint %[2]s", addr, have)
	}
	fmt.Fprintf(e.Err, "The cluster at %s is %s. Its authority has the fingerprint\n  %s\nIs it the one that its admin has? [y/N]: ", addr, shown.Cluster(), have)
	line, err := bufio.NewReader(e.In).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return nil, errors.Join(usage("login: the fingerprint was not confirmed; nothing was sent"), ignoreEOF(err))
	}
	return shown, nil
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// tokenFor is the token that a person gives: in a file, in the environment, or typed unseen.
func (e *Env) tokenFor(c *ucli.Context) (secret.Text, error) {
	if file := c.String("token-file"); file != "" {
		token, err := secret.FromFile(e.path(file))
		if err != nil {
			return token, fmt.Errorf("login: --token-file: %w", err)
		}
		return token, wellFormed("--token-file", token)
	}
	if text := e.environ("ATELIER_TOKEN"); text != "" {
		return secret.New(text), wellFormed("ATELIER_TOKEN", secret.New(text))
	}
	in, ok := e.In.(*os.File)
	if !e.Ask || !ok {
		return secret.Text{}, usage("login: no token: give --token-file FILE or ATELIER_TOKEN")
	}
	fmt.Fprint(e.Err, "Token (it is not shown): ")
	typed, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(e.Err)
	if err != nil {
		return secret.Text{}, fmt.Errorf("login: read the token: %w", err)
	}
	token := secret.New(strings.TrimSpace(string(typed)))
	return token, wellFormed("token", token)
}

// wellFormed looks at a token before it is sent anywhere.
func wellFormed(where string, token secret.Text) error {
	if _, err := access.Parse(token.Reveal()); err != nil {
		return usage("%s: %s", where, err)
	}
	return nil
}

// credentials are what a command shows to the cluster at these addresses, and which authority it believes
// there: those of the context, or of one with these addresses; for the loopback those that a coordinator has
// left for this user. ATELIER_TOKEN goes before a token that is kept, ATELIER_CA names a file of authorities.
// Where no authority is known, the cluster is taken for an open one, and no token is shown.
func (e *Env) credentials(addrs []string) ([]client.Option, error) {
	l, err := e.loginOf(addrs)
	if err != nil || l.CA == "" {
		return nil, err
	}
	trusted, err := identity.ParseTrusted([]byte(l.CA))
	if err != nil {
		return nil, usage("the certificate of the cluster's authority: %s", err)
	}
	return []client.Option{client.WithTLS(trusted.ClientTLS(nil)), client.WithToken(l.Token)}, nil
}

// loginOf is where credentials finds what it makes of; empty for an open cluster.
func (e *Env) loginOf(addrs []string) (l access.Login, err error) {
	if file := e.environ("ATELIER_CA"); file != "" {
		text, err := os.ReadFile(e.path(file))
		if err != nil {
			return l, usage("ATELIER_CA: %s", err)
		}
		l.CA = string(text)
	}
	if entry, ok := e.contextOf(addrs); ok && l.CA == "" {
		l.CA, l.Token = entry.CA, secret.New(entry.Token)
	}
	if l.CA == "" && client.Loopback(addrs) {
		_, port, _ := net.SplitHostPort(hostPort(addrs[0]))
		left, ok, err := access.ReadLogin(access.Settings(e.environ), port)
		if err != nil {
			return l, fmt.Errorf("the login of this machine's cluster: %w", err)
		}
		if ok {
			l = left
		}
	}
	if text := e.environ("ATELIER_TOKEN"); text != "" {
		l.Token = secret.New(text)
		if err := wellFormed("ATELIER_TOKEN", l.Token); err != nil {
			return l, err
		}
	}
	return l, nil
}

// contextOf is the context whose cluster is at these addresses: the one chosen, else one that has an address
// in common and a certificate.
func (e *Env) contextOf(addrs []string) (contextEntry, bool) {
	all, err := e.readContexts()
	if err != nil {
		return contextEntry{}, false // whoever needs one has been told
	}
	if entry, ok := all.Contexts[e.chosen.context]; ok {
		return entry, entry.CA != ""
	}
	for _, name := range all.names() {
		entry := all.Contexts[name]
		known, err := client.ParseAddrs(entry.Addr)
		if err == nil && entry.CA != "" && slices.ContainsFunc(known, func(a string) bool { return slices.Contains(addrs, a) }) {
			return entry, true
		}
	}
	return contextEntry{}, false
}
