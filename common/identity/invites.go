package identity

import "context"

// Invites let machines in that are not members yet.
type Invites interface {
	// Consume spends one use of the invite that the secret belongs to, for a node of that role that would like
	// to be called node. The answer is what its certificate shall say: the invite may lay the name down. It is asked
	// on the leader. An error's words reach who asks, and tell nothing of which invites there are.
	Consume(ctx context.Context, secret string, role Role, node string) (Name, error)
}
