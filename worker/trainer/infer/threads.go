//go:build libtorch

package infer

import (
	"runtime"
	"sync"

	"atelier/worker/trainer/torchx"
)

// leastPart is how many images make a part of their own worth while: each part's
// passes lay the weights out anew.
const leastPart = 4

// threadPool asks one model about parts of a batch at the same time, each on a thread
// of its own. The threads inside an operation wait for one another at its end,
// some sixty times a pass, and for whichever of them drawing or decoding has
// kept off its core; these threads wait once a batch.
type threadPool struct {
	threads int // of all together
	work    []chan task
}

type task struct {
	threads int
	do      func()
}

// newHands makes none yet: they are made as they are needed.
func newThreadPool(threads int, device torchx.Device) *threadPool {
	if device.CUDA() {
		threads = 1 // the device's work is one queue
	}
	return &threadPool{threads: max(threads, 1)}
}

// each calls f with ranges that make up n images, at the same time where there
// are enough of them, and returns an error of one.
func (h *threadPool) each(n int, f func(from, to int) error) error {
	parts := min(h.threads, n/leastPart)
	if parts < 2 {
		return f(0, n) // with all threads of whoever calls
	}
	for len(h.work) < parts {
		h.work = append(h.work, start())
	}
	failed := make([]error, parts)
	var wg sync.WaitGroup
	wg.Add(parts)
	for i := range parts {
		h.work[i] <- task{h.threads / parts, func() {
			defer wg.Done()
			failed[i] = f(i*n/parts, (i+1)*n/parts)
		}}
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// start begins a thread, which ends with its channel.
func start() chan task {
	work := make(chan task)
	go func() {
		runtime.LockOSThread()
		threads := 0
		for t := range work {
			if t.threads != threads {
				threads = t.threads
				torchx.SetThreads(threads) // what it refuses, it refused the caller
			}
			t.do()
		}
	}()
	return work
}

func (h *threadPool) close() {
	for _, w := range h.work {
		close(w)
	}
	h.work = nil
}
