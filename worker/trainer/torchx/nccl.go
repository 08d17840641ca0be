//go:build libtorch

package torchx

// #include <stdlib.h>
// #include "torchx.h"
import "C"

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"atelier/worker/trainer/group"
)

// NCCL moves the sums of a group's members between their GPUs: a group.Mover for
// Buckets. Nothing is added up by NCCL.
type NCCL struct {
	c        C.tx_nccl
	device   Device
	identity string
	version  string
	path     string
}

var _ group.Mover = (*NCCL)(nil)

// OpenNCCL opens the library at path, empty: libnccl.so.2 where the system has it,
// for sums on a device that has a name of its own among all of the members'. The
// error says what was found, where, and what to do: NCCL has to be 2.26.2 or later.
func OpenNCCL(path string, device Device, identity string) (*NCCL, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	n := &NCCL{device: device, identity: identity}
	var version, found *C.char
	if err := check(C.tx_nccl_open(p, &n.c, &version, &found)); err != nil {
		return nil, err
	}
	n.version, n.path = take(version), take(found)
	return n, nil
}

// Identity is a name that no other device has: a GPU's. The error of a device that
// sums cannot be moved from, such as the CPU, says so.
func Identity(d Device) (string, error) {
	var name *C.char
	if err := check(C.tx_device_identity(d.name, &name)); err != nil {
		return "", err
	}
	return take(name), nil
}

// take makes a text of C's the caller's.
func take(text *C.char) string {
	defer C.tx_free_text(text)
	return C.GoString(text)
}

// Path is the library's file.
func (n *NCCL) Path() string { return n.path }

// Kind is NCCL with its version: members of different ones do not meet.
func (n *NCCL) Kind() string { return "NCCL " + n.version }

// Device is the name that was given to OpenNCCL.
func (n *NCCL) Device() string { return n.identity }

// meetingBytes is the size of NCCL's id.
const meetingBytes = 128

// Meeting is a new unique id; NCCL listens on a socket for those who have it.
func (n *NCCL) Meeting() ([]byte, error) {
	id := make([]byte, meetingBytes)
	if err := check(C.tx_nccl_id(n.c, (*C.char)(unsafe.Pointer(&id[0])))); err != nil {
		return nil, err
	}
	return id, nil
}

// Meet makes this member's communicator, without waiting for the others.
func (n *NCCL) Meet(id []byte, rank, members int) (group.Carrier, error) {
	if len(id) != meetingBytes || rank < 0 || rank >= members {
		return nil, fmt.Errorf("nccl: an id of %d bytes, not %d, for rank %d of %d", len(id), meetingBytes, rank, members)
	}
	m := &meeting{}
	if err := check(C.tx_meeting_new(n.c, (*C.char)(unsafe.Pointer(&id[0])), C.int(rank), C.int(members), n.device.name, &m.c)); err != nil {
		return nil, err
	}
	return m, nil
}

// meeting is a communicator with its watchdog.
type meeting struct {
	mu        sync.Mutex // of c; not held while an exchange runs
	c         C.tx_meeting
	exchanges sync.WaitGroup
}

var errMeetingOver = errors.New("nccl: the meeting is over")

// abort ends what is under way, soon after it returns.
func (m *meeting) abort(why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.c != nil {
		text := C.CString(why)
		defer C.free(unsafe.Pointer(text))
		C.tx_meeting_abort(m.c, text)
	}
}

// Close ends the meeting and frees it.
func (m *meeting) Close() {
	m.abort("closed")
	m.mu.Lock()
	c := m.c
	m.c = nil
	m.mu.Unlock()
	if c != nil {
		m.exchanges.Wait()
		C.tx_meeting_free(c)
	}
}

// Exchange is of a *Buckets. It panics with an *Error where a GPU does not end what
// was aborted, since it may still read and write memory then.
func (m *meeting) Exchange(memory group.Memory, p group.Plan, stop <-chan struct{}, came func(bucket int)) error {
	b, ok := memory.(*Buckets)
	if !ok {
		return fmt.Errorf("nccl: sums of a %T cannot be moved", memory)
	}
	m.mu.Lock()
	c := m.c
	if c == nil {
		m.mu.Unlock()
		return errMeetingOver
	}
	m.exchanges.Add(1)
	m.mu.Unlock()
	defer m.exchanges.Done()

	over, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-stop:
			m.abort("the step is dirty")
		case <-over:
		}
	}()
	defer func() { <-watched }()
	defer close(over)
	for bucket := range b.Sizes() {
		if err := b.exchange(c, bucket, p, stop); err != nil {
			m.abort(err.Error())
			return err
		}
		came(bucket)
	}
	return nil
}

// exchange is one bucket's.
func (b *Buckets) exchange(m C.tx_meeting, bucket int, p group.Plan, stop <-chan struct{}) error {
	members := len(p.First) - 1
	var first []C.int32_t
	for _, f := range p.First {
		first = append(first, C.int32_t(f))
	}
	var cuts []C.int64_t
	for _, at := range p.Cuts(b.Sizes()[bucket]) {
		cuts = append(cuts, C.int64_t(at))
	}
	program := steps(p.Merges, p.First[members])
	done := C.int(0)
	err := b.wait(stop, func(c C.tx_buckets, call C.int64_t) C.tx_error {
		return C.tx_buckets_exchange(c, m, C.int(bucket), call, C.int(p.Rank), C.int(members), unsafe.SliceData(first), unsafe.SliceData(cuts),
			unsafe.SliceData(program), C.int(len(p.Merges)), &done)
	})
	var fault *Error
	if errors.As(err, &fault) && fault.Class == DeviceFault {
		panic(fault)
	}
	if err == nil && done == 0 {
		return errors.New("nccl: stopped")
	}
	return err
}
