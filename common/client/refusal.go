package client

import (
	"errors"

	atelierv1 "atelier/common/proto/atelier/v1"

	"connectrpc.com/connect"
)

// Reason is why a coordinator refuses what it was asked. Programs branch on it,
// never on the words of the message.
type Reason int32

const (
	// ReasonNoLeader: no leader is known, or it did not confirm in time.
	ReasonNoLeader = Reason(atelierv1.Reason_REASON_NO_LEADER)
	// ReasonRemoved: the node that asks was taken off its cluster.
	ReasonRemoved = Reason(atelierv1.Reason_REASON_REMOVED)
	// ReasonOtherCluster: the node that asks belongs to another cluster.
	ReasonOtherCluster = Reason(atelierv1.Reason_REASON_OTHER_CLUSTER)
	// ReasonDeleted: the sweep was deleted for good.
	ReasonDeleted = Reason(atelierv1.Reason_REASON_DELETED)
)

// Refusal travels as a detail of an error, in every protocol that the API speaks.
type Refusal struct {
	Reason      Reason // 0 = none that programs branch on
	NothingDone bool   // no node has begun to carry the request out: it may be sent again, to any
	Text        string // for people; only read
	Cluster     string // id of the cluster that refuses, "" where it does not matter
}

// Error is err with a code and the refusal as its detail.
func (r Refusal) Error(code connect.Code, err error) *connect.Error {
	e := connect.NewError(code, err)
	d, problem := connect.NewErrorDetail(&atelierv1.Refusal{Reason: atelierv1.Reason(r.Reason), NothingDone: r.NothingDone, ClusterId: r.Cluster})
	if problem == nil { // a message of three fields always encodes
		e.AddDetail(d)
	}
	return e
}

// RefusalOf finds the refusal in an error, also below what a Client makes of it
// when its time is up. It is empty where there is none.
func RefusalOf(err error) Refusal {
	var e *connect.Error
	for errors.As(err, &e) {
		for _, d := range e.Details() {
			if m, err := d.Value(); err == nil {
				if r, ok := m.(*atelierv1.Refusal); ok {
					return Refusal{Reason: Reason(r.Reason), NothingDone: r.NothingDone, Text: e.Message(), Cluster: r.ClusterId}
				}
			}
		}
		err = e.Unwrap()
	}
	return Refusal{}
}
