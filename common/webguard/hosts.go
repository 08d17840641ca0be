package webguard

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Hosts are the names under which a server answers. A page whose name its owner
// lets lead to this machine (DNS rebinding) is of the same origin for the browser,
// and so for every check but this one.
type Hosts struct {
	ip    netip.Addr // that the server listens on
	names []string   // in small letters
}

// NewHosts makes the list of a listener's address and further names without a port. A listener on loopback answers as
// localhost and any loopback address; one on all addresses as any address, for an address in numbers is never looked
// up and may be one that is translated on the way here (a container's); any other as its own address.
func NewHosts(listen net.Addr, names ...string) (Hosts, error) {
	at, err := netip.ParseAddrPort(listen.String())
	if err != nil {
		return Hosts{}, fmt.Errorf("listening on %s: %w", listen, err)
	}
	h := Hosts{ip: at.Addr().Unmap().WithZone("")}
	for _, n := range names {
		clean := strings.ToLower(strings.TrimSuffix(n, "."))
		if clean == "" || strings.ContainsAny(clean, ":/[]@ *,") {
			return Hosts{}, fmt.Errorf("host %q: want a name without scheme and port, such as gpu-box.example.org", n)
		}
		h.names = append(h.names, clean)
	}
	return h, nil
}

// Allow reports whether a request's Host, with or without a port, is one of them. Ports differ where a
// tunnel ends (ssh -L 9000:127.0.0.1:8501).
func (h Hosts) Allow(hostport string) bool {
	host := strings.ToLower(strings.TrimSuffix(bare(hostport), "."))
	if host == "" {
		return false
	}
	if slices.Contains(h.names, host) {
		return true
	}
	if host == "localhost" {
		return h.ip.IsLoopback() || h.ip.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return ip == h.ip || h.ip.IsUnspecified() || h.ip.IsLoopback() && ip.IsLoopback()
}

// Best is the host to print in links: a name that was given, else an address that others reach.
func (h Hosts) Best() string {
	if len(h.names) > 0 {
		return h.names[0]
	}
	if h.ip.IsUnspecified() {
		all, _ := net.InterfaceAddrs()
		for _, a := range all {
			if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
				return n.IP.String()
			}
		}
		return "localhost"
	}
	return h.ip.String()
}

// bare is a host without its port and brackets.
func bare(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	if inner, ok := strings.CutPrefix(hostport, "["); ok {
		return strings.TrimSuffix(inner, "]")
	}
	return hostport
}
