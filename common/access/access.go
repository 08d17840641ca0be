// Package access is who may do what in a closed cluster: the roles, what a route asks of its
// caller, and the texts by which people, programs and machines show who they are. Who holds
// which role is the coordinators' to say.
//
// It refuses to keep a secret: a cluster has the SHA-256 of each.
package access

import (
	"fmt"
	"strings"
)

// Role is what a caller may do. The numbers are those of the schema and of the raft log: they
// are never given to another meaning.
type Role int32

const (
	Nobody      Role = iota // no credential
	Viewer                  // reads
	Operator                // also sweeps, trials and workers
	Admin                   // also members, snapshots, tokens and invitations
	Worker                  // the agent of a machine
	Coordinator             // a member of the cluster
	Trial                   // a program that trains one trial elsewhere
)

var roleWords = [...]string{"nobody", "viewer", "operator", "admin", "worker", "coordinator", "trial"}

// String is the role's word.
func (r Role) String() string {
	if r < 0 || int(r) >= len(roleWords) {
		return "unknown"
	}
	return roleWords[r]
}

// Person reports whether a token may have the role.
func (r Role) Person() bool { return r >= Viewer && r <= Admin }

// Machine reports whether an invitation may give the role.
func (r Role) Machine() bool { return r == Worker || r == Coordinator }

// ParseRole reads the word of one of the roles offered.
func ParseRole(word string, offered ...Role) (Role, error) {
	var words []string
	for _, r := range offered {
		if r.String() == word {
			return r, nil
		}
		words = append(words, r.String())
	}
	return Nobody, fmt.Errorf("role %q: use %s", word, strings.Join(words, ", "))
}

// Need is what a route asks of its caller: a set of roles.
type Need uint16

const (
	needNothing Need = 1 << iota
	needViewer
	needOperator
	needAdmin
	needWorker
	needCoordinator
	needTrial
)

// What a route may ask. People of a higher role may what those of a lower one may; machines and
// trials may what names them.
const (
	Anybody   = needNothing
	Viewers   = needViewer | Operators
	Operators = needOperator | Admins
	Admins    = needAdmin

	Workers      = needWorker
	Coordinators = needCoordinator
	Trials       = needTrial
)

// Allows reports whether a role is enough.
func (n Need) Allows(r Role) bool {
	return n&needNothing != 0 || r > Nobody && int(r) < len(roleWords) && n&(1<<r) != 0
}

// Lowest is the word for what is asked: the lowest role of people, and the others besides.
func (n Need) Lowest() string {
	if n&needNothing != 0 {
		return "none"
	}
	var words []string
	if r := n.Person(); r != Nobody {
		words = append(words, r.String())
	}
	for r := Worker; r <= Trial; r++ {
		if n.Allows(r) {
			words = append(words, r.String())
		}
	}
	return strings.Join(words, " or ")
}

// Person is the lowest role of people that is enough; Nobody where no person may.
func (n Need) Person() Role {
	for r := Viewer; r <= Admin; r++ {
		if n.Allows(r) {
			return r
		}
	}
	return Nobody
}

// Caller is who sends a request, as a coordinator has made sure.
type Caller struct {
	Role Role
	Name string // of the token, the node or the trial; "" = nobody known
	ID   string // of the token; of a trial SWEEP.NUMBER

	// Of a trial: the only one it reaches, and the token of the run that it speaks for.
	Sweep string
	Trial int64
	Run   uint64
}

// Known reports whether the caller has shown who it is.
func (c Caller) Known() bool { return c.Role != Nobody }

// String names the caller in lists and logs.
func (c Caller) String() string {
	switch {
	case !c.Known():
		return "nobody"
	case c.Role.Person():
		return c.Name
	}
	return c.Role.String() + " " + c.Name
}

// Token is one without its secret, which nobody has but its holder.
type Token struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Role      string `json:"role"`
	CreatedMS int64  `json:"created_ms"`
	ExpiresMS int64  `json:"expires_ms"` // 0 = never
	RevokedMS int64  `json:"revoked_ms"` // 0 = it is not
	By        string `json:"by"`         // who made it; empty = the cluster, when it began
}

// Invite is an invitation without its secret.
type Invite struct {
	ID        string      `json:"id"`
	Role      string      `json:"role"`
	Node      string      `json:"node"` // the only name it is good for; empty = any
	CreatedMS int64       `json:"created_ms"`
	ExpiresMS int64       `json:"expires_ms"`
	RevokedMS int64       `json:"revoked_ms"` // 0 = it is not
	Uses      int32       `json:"uses"`
	By        string      `json:"by"`
	Taken     []InviteUse `json:"taken"`
}

// InviteUse is a machine that joined by an invitation.
type InviteUse struct {
	Node   string `json:"node"`
	TimeMS int64  `json:"time_ms"`
}

// Act is an entry of the list of who changed what, and what was refused to whom.
type Act struct {
	Index   uint64 `json:"index"` // raft index
	TimeMS  int64  `json:"time_ms"`
	By      string `json:"by"`
	What    string `json:"what"`
	About   string `json:"about"`
	Refused string `json:"refused"` // why; empty = it was done
	Count   int64  `json:"count"`   // how many times
}

// Who is what a coordinator makes of a credential.
type Who struct {
	Closed    bool   `json:"closed"` // the cluster wants credentials
	Name      string `json:"name"`
	Role      string `json:"role"`
	Refused   string `json:"refused"`    // why the credential is not good; empty = it is, or there was none
	ExpiresMS int64  `json:"expires_ms"` // of the token; 0 = never
}
