package member

import (
	"net"
	"strconv"
)

// listen binds addr. With port 0 it takes the port it had before, if that is
// free: a cluster whose nodes all come back elsewhere could not find a majority.
func listen(addr, before string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if port == "0" && before != "" {
		if _, old, err := net.SplitHostPort(before); err == nil {
			if l, err := net.Listen("tcp", net.JoinHostPort(host, old)); err == nil {
				return l, nil
			}
		}
	}
	return net.Listen("tcp", addr)
}

// gossipBind is listen's rule for gossip, which binds for itself.
func gossipBind(addr, before string) string {
	l, err := listen(addr, before)
	if err != nil {
		return addr
	}
	defer l.Close()
	host, port, err := net.SplitHostPort(addr)
	if err != nil || port != "0" || before == "" {
		return addr
	}
	return net.JoinHostPort(host, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// reachable is where others find a listener.
func reachable(l net.Listener, bind, advertise string) string {
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	if advertise != "" {
		return net.JoinHostPort(advertise, port)
	}
	host, _, _ := net.SplitHostPort(bind)
	return net.JoinHostPort(host, port)
}
