// Package identity is who a machine of a cluster is: the cluster's certificate
// authority, the certificates that name cluster, role and node, the folder that
// keeps them, and TLS 1.3 made of them.
//
// It refuses to decide who may become a member, which the coordinators do
// through the log, and it knows nothing of people, who have tokens.
package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Role is what a node does in its cluster.
type Role string

// The roles that a certificate can name.
const (
	Coordinator Role = "coordinator"
	Worker      Role = "worker"
)

// scheme of the URI that names a node in its certificate.
const scheme = "atelier"

// part is what a cluster's id and a node's name may be.
var part = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Name is who a certificate says its holder is.
type Name struct {
	Cluster string // the id under which the cluster's authority was made; a recovered cluster keeps it
	Role    Role
	Node    string // id of a coordinator, name of a worker
}

// String is for people: "worker w1 of cluster c-abc".
func (n Name) String() string { return fmt.Sprintf("%s %s of cluster %s", n.Role, n.Node, n.Cluster) }

// URI is the name as a certificate has it: atelier://CLUSTER/ROLE/NODE.
func (n Name) URI() string { return scheme + "://" + n.Cluster + "/" + string(n.Role) + "/" + n.Node }

// Check says what no certificate may name.
func (n Name) Check() error {
	switch {
	case !part.MatchString(n.Cluster):
		return fmt.Errorf("%q is not the id of a cluster", n.Cluster)
	case n.Role != Coordinator && n.Role != Worker:
		return fmt.Errorf("role %q is neither %s nor %s", n.Role, Coordinator, Worker)
	case !part.MatchString(n.Node):
		return fmt.Errorf("%q cannot be the name of a node: at most 64 letters, digits, dots, underscores and hyphens, the first one a letter or digit", n.Node)
	}
	return nil
}

// ParseName reads the URI of a certificate.
func ParseName(uri string) (Name, error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != scheme {
		return Name{}, fmt.Errorf("%.100q names no node of Atelier", uri)
	}
	role, node, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	n := Name{u.Host, Role(role), node}
	if n.URI() != uri { // one way to write each name, and nothing beside it
		return Name{}, fmt.Errorf("%.100q names no node of Atelier", uri)
	}
	return n, n.Check()
}

// NameOf reads who a certificate is for. It says nothing of whether the certificate is to be believed.
func NameOf(c *x509.Certificate) (Name, error) {
	if len(c.URIs) != 1 || c.IsCA {
		return Name{}, fmt.Errorf("the certificate of %.100q names no node of Atelier", c.Subject.CommonName)
	}
	return ParseName(c.URIs[0].String())
}

// clusterOf is the cluster that an authority's certificate is of.
func clusterOf(c *x509.Certificate) (string, error) {
	if c.IsCA && len(c.URIs) == 1 && c.URIs[0].Scheme == scheme && c.URIs[0].String() == scheme+"://"+c.URIs[0].Host && part.MatchString(c.URIs[0].Host) {
		return c.URIs[0].Host, nil
	}
	return "", fmt.Errorf("the certificate of %.100q is not of a cluster's authority", c.Subject.CommonName)
}
