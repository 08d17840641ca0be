package wire

import (
	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
)

// Notification is nil for nil.
func Notification(n *atelierv1.Notification) *trial.Notification {
	if n == nil {
		return nil
	}
	return &trial.Notification{URL: n.GetUrl(), On: List(n.GetOn(), SweepStatus), EndMS: n.GetEndMs(), Attempts: n.GetAttempts(), LastMS: n.GetLastMs(), Error: n.GetError(), Done: n.GetDone()}
}

// ToNotification is Notification's inverse.
func ToNotification(n *trial.Notification) *atelierv1.Notification {
	if n == nil {
		return nil
	}
	return &atelierv1.Notification{Url: n.URL, On: List(n.On, ToSweepStatus), EndMs: n.EndMS, Attempts: n.Attempts, LastMs: n.LastMS, Error: n.Error, Done: n.Done}
}
