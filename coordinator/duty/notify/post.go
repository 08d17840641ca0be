package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"atelier/common/terminal"
	"atelier/common/version"
)

const (
	postTimeout = 10 * time.Second // of one attempt, answer included
	mostAnswer  = 64 << 10         // bytes of an answer that are read, and ignored
	mostError   = 300              // bytes of an error that is kept
)

// metadata are addresses beside the link-local ones where clouds keep the credentials of
// their machines.
var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192")}

// refused returns why an address is not spoken to; "" where it is. Private networks and
// this machine are spoken to: chat servers stand there.
func refused(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	switch {
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsUnspecified(), a.IsMulticast():
		return "not the address of a machine"
	}
	for _, m := range metadata {
		if a == m {
			return "an address of a cloud's metadata service"
		}
	}
	return ""
}

// CheckURL returns why an address cannot be posted to; nil where it can. Its text names
// no more of the address than the host.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is not a URL") // the error holds all of it
	case !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://"):
		return errors.New("it does not begin with http:// or https://")
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("it names no host")
	case u.Fragment != "":
		return errors.New("it has a fragment (#)")
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && refused(a) != "" {
		return fmt.Errorf("%s is %s", u.Hostname(), refused(a))
	}
	if host := strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")); host == "metadata.google.internal" || host == "metadata" {
		return fmt.Errorf("%s is a cloud's metadata service", u.Hostname())
	}
	return nil
}

// client speaks to the addresses of people. What a name resolves to is looked at when it
// is dialled: it may be another address than when the URL was checked.
var client = &http.Client{
	Timeout:       postTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: postTimeout, Control: dial}).DialContext,
		TLSHandshakeTimeout:    postTimeout,
		ResponseHeaderTimeout:  postTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
	},
}

// dial refuses addresses that are not spoken to.
func dial(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if why := refused(a.Addr()); why != "" {
		return fmt.Errorf("%s is %s: no end of a sweep is posted there", a.Addr(), why)
	}
	return nil
}

// Post posts a document once. An error names no more of the address than the host.
func Post(ctx context.Context, address string, body []byte) error {
	if err := CheckURL(address); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return errors.New("it is not a URL")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "atelier/"+version.Version)
	resp, err := client.Do(req)
	if err != nil {
		return plain(err, address)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, mostAnswer))
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fmt.Errorf("answered %d %s: redirects are not followed", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return fmt.Errorf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// plain is an error without the address in front of it, and without any part of the
// address behind the host that it may name.
func plain(err error, address string) error {
	var whole *url.Error
	if errors.As(err, &whole) {
		if err = whole.Err; whole.Timeout() {
			return fmt.Errorf("no answer within %v", postTimeout)
		}
	}
	text := terminal.Line(err.Error())
	if u, e := url.Parse(address); e == nil {
		password, _ := u.User.Password()
		for _, secret := range []string{address, u.RequestURI(), u.Path, u.RawQuery, u.User.String(), password} {
			if len(secret) > 1 {
				text = strings.ReplaceAll(text, secret, "...")
			}
		}
	}
	if len(text) > mostError {
		text = strings.ToValidUTF8(text[:mostError], "") + " ..."
	}
	return errors.New(text)
}
