//go:build libtorch

package torchx

// #include "torchx.h"
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"atelier/worker/trainer/group"
)

// BucketBytes is the size of a bucket where none is given.
const BucketBytes = 4 << 20

// Buckets are the sums of a member of a group: gradients and running statistics
// of its shards, added up along the fixed binary tree over shards while backward
// makes them. They are a group.Memory; worker/trainer/group/DESIGN.md has the
// tree and the step.
//
// A step: Begin; for each shard its forward and backward passes, the last
// backward between Arm and Done; then Apply, when Result has the sums over all
// shards, and the update; or Drop. These and the accessors are called by one
// goroutine at a time, Ready by another.
type Buckets struct {
	c       C.tx_buckets
	file    *os.File
	segment []byte  // mapped; slots of sums, and one of the owner's results
	starts  []int64 // of the buckets in a slot, in floats, and the end
	slot    int64   // floats
	own     int64   // slots before that of the owner's results
	result  *C.float

	waiting sync.Mutex // held by Ready
	call    int64      // of Ready
}

var _ group.Memory = (*Buckets)(nil)

// NewBuckets makes the sums of params, float32 leaves that are trained, in the
// order of registration, and of statistics, the float32 buffers that forward
// passes move. All lie on one device. Buckets are of about bucketBytes (0:
// BucketBytes), the first of 1 MiB at most, in the order in which backward comes
// to the parameters; the last one is of the statistics. Memory is used as steps
// need it: a slot of all parameters for each sum that waits for its neighbour.
//
// The tensors must keep their device and layout. Only one Buckets at a time may
// have a parameter.
func NewBuckets(params, statistics []Tensor, bucketBytes int) (*Buckets, error) {
	if bucketBytes == 0 {
		bucketBytes = BucketBytes
	}
	b := &Buckets{}
	if err := check(C.tx_buckets_new(list(params), C.int(len(params)), list(statistics), C.int(len(statistics)), C.int64_t(bucketBytes), &b.c)); err != nil {
		return nil, err
	}
	var count, own C.int
	var starts *C.int64_t
	var slot C.int64_t
	C.tx_buckets_layout(b.c, &count, &starts, &slot, &own)
	b.starts = slices.Clone(unsafe.Slice((*int64)(unsafe.Pointer(starts)), int(count)+1))
	b.slot, b.own = int64(slot), int64(own)
	var err error
	if b.file, b.segment, err = group.NewSegment("gradients", int(4*b.slot*(b.own+1))); err != nil {
		C.tx_buckets_free(b.c)
		return nil, err
	}
	C.tx_buckets_use(b.c, unsafe.Pointer(&b.segment[0]))
	return b, nil
}

// Begin starts a step in which those of the shards [from, to) that are below
// present will be added in order. A step that was begun before and not applied is
// dropped. The values that statistics have now are the committed ones.
func (b *Buckets) Begin(from, to, present int) error {
	if err := check(C.tx_buckets_begin(b.c, C.int64_t(from), C.int64_t(to), C.int64_t(present))); err != nil {
		return err
	}
	return check(C.tx_buckets_result(b.c, &b.result))
}

// Arm comes before a shard's last backward: from now on each gradient is taken
// as it is accumulated, added up and dropped. weight is that of the shard's
// running statistics.
func (b *Buckets) Arm(shard int, weight float64) error {
	return check(C.tx_buckets_arm(b.c, C.int64_t(shard), C.double(weight)))
}

// Done comes after that backward. A gradient that only an earlier backward of the
// shard made is taken, none counts as zeros; statistics are added up times the
// weight and get their committed values back.
func (b *Buckets) Done() error { return check(C.tx_buckets_done(b.c)) }

// Apply makes the gradients of params views of Result, which live until the next
// Begin, and gives statistics theirs.
func (b *Buckets) Apply() error { return check(C.tx_buckets_apply(b.c)) }

// Drop ends a dirty step: no gradients, statistics as committed. When all shards
// were done, statistics have their committed values already and are left alone:
// a state read from another member in between stays.
func (b *Buckets) Drop() error { return check(C.tx_buckets_drop(b.c)) }

// Free ends them; Ready returns first. Gradients that are views of Result go.
// Freeing twice, or nil, is harmless.
func (b *Buckets) Free() {
	if b == nil || b.c == nil {
		return
	}
	C.tx_buckets_end(b.c)
	b.waiting.Lock()
	defer b.waiting.Unlock()
	if err := b.Drop(); err != nil {
		panic(err)
	}
	C.tx_buckets_free(b.c)
	b.c = nil
	unix.Munmap(b.segment)
	b.file.Close()
	b.segment = nil
}

// Sizes are the floats of each bucket. Between parameters lie zeros, up to a
// cache line's end.
func (b *Buckets) Sizes() []int {
	sizes := make([]int, len(b.starts)-1)
	for i := range sizes {
		sizes[i] = int(b.starts[i+1] - b.starts[i])
	}
	return sizes
}

// Segment is the memory of the sums, which peers on this machine may map.
func (b *Buckets) Segment() (f *os.File, bytes int64) { return b.file, int64(len(b.segment)) }

// Contribution is the sum of the node-th greatest whole node of the shards, and
// its place in the segment. It is there when Ready named the bucket.
func (b *Buckets) Contribution(bucket, node int) ([]float32, int64) {
	if node < 0 || int64(node) >= b.own {
		panic(fmt.Sprintf("torchx: node %d of a bucket", node))
	}
	return b.at(bucket, int64(node))
}

// Own is where the owner's piece of the result goes, and its place in the
// segment.
func (b *Buckets) Own(bucket int) ([]float32, int64) { return b.at(bucket, b.own) }

func (b *Buckets) at(bucket int, slot int64) ([]float32, int64) {
	from, n := slot*b.slot+b.starts[bucket], b.starts[bucket+1]-b.starts[bucket]
	return unsafe.Slice((*float32)(unsafe.Pointer(&b.segment[4*from])), n), 4 * from
}

// Result is where the sum over all shards comes. With all shards in this member
// it is the contribution itself.
func (b *Buckets) Result(bucket int) []float32 {
	all := unsafe.Slice((*float32)(unsafe.Pointer(b.result)), b.slot)
	return all[b.starts[bucket]:b.starts[bucket+1]]
}

// Ready waits for the next bucket whose contributions are complete; each comes
// once a step. ok false: stop was closed, or the step dropped. It panics with an
// *Error where a GPU fails to hand a bucket over.
func (b *Buckets) Ready(stop <-chan struct{}) (bucket int, ok bool) {
	next := C.int(-1)
	Must(b.wait(stop, func(c C.tx_buckets, call C.int64_t) C.tx_error { return C.tx_buckets_wait(c, call, &next) }))
	return int(next), next >= 0
}

// wait makes a call that waits for buckets, and ends when stop is closed. Of freed
// ones it makes none.
func (b *Buckets) wait(stop <-chan struct{}, f func(c C.tx_buckets, call C.int64_t) C.tx_error) error {
	b.waiting.Lock()
	defer b.waiting.Unlock()
	if b.c == nil {
		return nil
	}
	b.call++
	c, call := b.c, C.int64_t(b.call)
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-stop:
			C.tx_buckets_stop(c, call)
		case <-done:
		}
	}()
	err := check(f(c, call))
	close(done)
	<-watched // c may be freed
	return err
}

// Sum carries a program out: in[m.To] += in[m.From] in order, then out = in[0].
// in stays as it is; all are as long as out.
func (b *Buckets) Sum(out []float32, in [][]float32, program []group.Merge) {
	if len(in) == 0 {
		panic("torchx: a sum of nothing")
	}
	var pinned runtime.Pinner
	defer pinned.Unpin()
	from := make([]*float32, len(in))
	for i, x := range in {
		if len(x) != len(out) {
			panic(fmt.Sprintf("torchx: %d floats are added to %d", len(x), len(out)))
		}
		from[i] = unsafe.SliceData(x)
		pinned.Pin(from[i])
	}
	Must(check(C.tx_sum((*C.float)(unsafe.SliceData(out)), (**C.float)(unsafe.Pointer(unsafe.SliceData(from))), C.int(len(in)),
		unsafe.SliceData(steps(program, len(in))), C.int(len(program)), C.int64_t(len(out)))))
}

// steps is a program over so many inputs as C takes it.
func steps(program []group.Merge, inputs int) []C.int32_t {
	list := make([]C.int32_t, 0, 2*len(program))
	for _, m := range program {
		if uint(m.To) >= uint(inputs) || uint(m.From) >= uint(inputs) {
			panic(fmt.Sprintf("torchx: a merge of %d into %d of %d", m.From, m.To, inputs))
		}
		list = append(list, C.int32_t(m.To), C.int32_t(m.From))
	}
	return list
}
