package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"atelier/common/client"
	atelierv1 "atelier/common/proto/atelier/v1"
)

// A leader that stood still for longer than a disk may take (SIGSTOP, a machine
// that is suspended or moved) goes on: it was not its disk that hung.
func TestStoppedLeaderDoesNotBlameItsDisk(t *testing.T) {
	p := startProcess(t, t.TempDir(), "p1", "--bootstrap")
	c := client.New([]string{p.at.API}, client.WithRetryFor(time.Minute))
	raw(c).Create(t, spec(1, 1))
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	defer func() { cancel(); writers.Wait() }()
	large := spec(1, 1) + strings.Repeat("# so that an append takes its time, and is under way when the process is stopped\n", 3000)
	for w := range 4 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for n := 0; ctx.Err() == nil; n++ {
				c.Raw().Sweeps.CreateSweep(ctx, connect.NewRequest(&atelierv1.CreateSweepRequest{RequestId: fmt.Sprint(w, "-", n), SpecYaml: large}))
			}
		}()
	}
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		freeze(t, p)
		time.Sleep(5600 * time.Millisecond) // DiskTimeout is 5 s
		p.cmd.Process.Signal(syscall.SIGCONT)
	}
	time.Sleep(700 * time.Millisecond) // the watchdog looks twice a second
	cancel()
	writers.Wait()
	raw(c).Create(t, spec(1, 1))
	if strings.Contains(p.log.String(), "the disk hangs") {
		t.Errorf("it says\n%s", p.log)
	}
}
