package client

import "time"

// SetStall shortens the wait for a worker that sends nothing.
func SetStall(d time.Duration) (back func()) {
	was := stall
	stall = d
	return func() { stall = was }
}
