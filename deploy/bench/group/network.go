package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"atelier/deploy/bench/harness"
)

// network is some hosts of one bridge: network namespaces of this machine, each
// with an address, and a link of a limited rate in both directions.
type network struct {
	bridge string
	hosts  []*host
}

// host is one of them; its programs run on this machine's processors.
type host struct {
	names []string // of the coordinators and workers that run on it
	space string   // network namespace
	port  string   // the bridge's end of its link
	addr  string
}

// newNetwork makes hosts of these names, with links of so many Mbit/s (0 = no
// limit). Without root or the ip command the error is an errSkipped.
func newNetwork(mbit int, names ...[]string) (n *network, err error) {
	if os.Geteuid() != 0 {
		return nil, errSkipped("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, errSkipped("network namespaces need the ip command: apt-get install iproute2")
	}
	// Names of interfaces have 15 characters at most. The subnet is of this process too: two measurements
	// at a time do not meet.
	id := fmt.Sprintf("ab%d", os.Getpid()%100_000)
	subnet := fmt.Sprintf("10.%d.%d", 64+os.Getpid()/250%64, os.Getpid()%250)
	n = &network{bridge: id + "br"}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if err := ip("link", "add", n.bridge, "type", "bridge"); err != nil {
		return n, errSkipped("no network namespaces on this machine: " + err.Error())
	}
	if err := errors.Join(ip("addr", "add", subnet+".254/24", "dev", n.bridge), ip("link", "set", n.bridge, "up")); err != nil {
		return n, err
	}
	for i, name := range names {
		h := &host{names: name, space: fmt.Sprintf("%sn%d", id, i), port: fmt.Sprintf("%sp%d", id, i), addr: fmt.Sprintf("%s.%d", subnet, i+1)}
		if err := ip("netns", "add", h.space); err != nil {
			return n, errSkipped("no network namespaces on this machine: " + err.Error())
		}
		n.hosts = append(n.hosts, h)
		for _, line := range []string{
			"link add " + h.port + " type veth peer name eth0 netns " + h.space,
			"link set " + h.port + " master " + n.bridge,
			"link set " + h.port + " up",
			"-n " + h.space + " link set lo up",
			"-n " + h.space + " addr add " + h.addr + "/24 dev eth0",
			"-n " + h.space + " link set eth0 up",
		} {
			if err := ip(strings.Fields(line)...); err != nil {
				return n, err
			}
		}
		if mbit == 0 {
			continue
		}
		rate := []string{"root", "tbf", "rate", fmt.Sprintf("%dmbit", mbit), "burst", "1mb", "latency", "50ms"}
		for _, args := range [][]string{append([]string{"tc", "qdisc", "add", "dev", h.port}, rate...),
			append([]string{"ip", "netns", "exec", h.space, "tc", "qdisc", "add", "dev", "eth0"}, rate...)} {
			if err := call(args...); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// of is the host of a worker or coordinator; nil where there is none.
func (n *network) of(name string) *host {
	for _, h := range n.hosts {
		if slices.Contains(h.names, name) {
			return h
		}
	}
	return nil
}

// cut takes a host off the network: nothing it sends arrives, and no end of a
// connection is told.
func (n *network) cut(h *host) error { return ip("link", "set", h.port, "down") }

// mend connects it again.
func (n *network) mend(h *host) error { return ip("link", "set", h.port, "up") }

// close removes all of it. The programs in it have ended.
func (n *network) close() {
	for _, h := range n.hosts {
		_ = ip("netns", "del", h.space) // its link goes with it
	}
	_ = ip("link", "del", n.bridge)
}

// programs is a folder of programs in which a coordinator or worker starts in the
// host of its name.
func (n *network) programs(dir, bin string) (string, error) {
	to := filepath.Join(dir, "programs")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	for program, flag := range map[string]string{"atelier-coordinator": "--id", "atelier-worker": "--name"} {
		var script strings.Builder
		script.WriteString("#!/bin/sh\ncase \" $* \" in\n")
		for _, h := range n.hosts {
			for _, name := range h.names {
				fmt.Fprintf(&script, "*\" %s %s \"*) space=%s;;\n", flag, name, h.space)
			}
		}
		fmt.Fprintf(&script, "esac\nexec ip netns exec $space %q \"$@\"\n", filepath.Join(bin, program))
		if err := os.WriteFile(filepath.Join(to, program), []byte(script.String()), 0o755); err != nil {
			return "", err
		}
	}
	return to, nil
}

func ip(args ...string) error { return call(append([]string{"ip"}, args...)...) }

func call(args ...string) error {
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, harness.Tail(out))
	}
	return nil
}
