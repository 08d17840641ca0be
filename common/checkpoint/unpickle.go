package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	maxPickle  = 64 << 20 // bytes of a pickle
	maxObjects = 4 << 20  // values a pickle may make
	maxMemo    = 1 << 20
	maxVisits  = 8 << 20 // values of the tree when shared ones count each time
)

// machine is the restricted unpickler: a stack machine over data that calls nothing but the builders of
// names.go. Its memory is bounded by the limits above.
type machine struct {
	in       *bytes.Reader
	stack    []Value
	marks    []int
	memo     map[uint32]Value
	objects  int
	storages map[string]*storage
	tensors  []*pendingTensor
}

// storage is a run of elements that tensors look into. Its bytes are read after the pickle.
type storage struct {
	key   string
	dtype DType
	numel int64
	data  []byte
	// view is set for a legacy file's storage that is a part of another.
	base   *storage
	offset int64
}

// pendingTensor is a tensor whose bytes are not read yet.
type pendingTensor struct {
	tensor  *Tensor
	storage *storage
	offset  int64
	strides []int64
}

func newMachine(r *bytes.Reader) *machine {
	return &machine{in: r, memo: map[uint32]Value{}, storages: map[string]*storage{}}
}

// load runs one pickle to its end and returns its value, without tensors' bytes.
func (m *machine) load() (Value, error) {
	m.stack, m.marks, m.memo = m.stack[:0], m.marks[:0], map[uint32]Value{}
	for {
		at := m.in.Size() - int64(m.in.Len())
		op, err := m.in.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("pickle is cut off at byte %d", at)
		}
		if op == opStop {
			if len(m.stack) != 1 || len(m.marks) != 0 {
				return nil, fmt.Errorf("pickle ends at byte %d with %d values on the stack", at, len(m.stack))
			}
			root := m.stack[0]
			if err := checkTree(root); err != nil {
				return nil, err
			}
			return root, nil
		}
		if err := m.step(op); err != nil {
			return nil, fmt.Errorf("pickle, byte %d: %w", at, err)
		}
	}
}

func (m *machine) step(op byte) error {
	switch op {
	case opProto:
		_, err := m.take(1)
		return err
	case opMark:
		if len(m.marks) >= maxObjects {
			return fmt.Errorf("%w: more than %d marks", ErrRefused, maxObjects)
		}
		m.marks = append(m.marks, len(m.stack))
		return nil
	case opNone:
		return m.push(nil)
	case opTrue:
		return m.push(true)
	case opFalse:
		return m.push(false)
	case opInt1, opInt2, opInt4, opLong1, opFloat:
		return m.number(op)
	case opUnicode, opShortUnicode, opLongUnicode, opString, opShortString, opBytes, opShortBytes, opLongBytes, opByteArray:
		return m.text(op)
	case opEmptyTuple:
		return m.push(&Tuple{})
	case opTuple1, opTuple2, opTuple3:
		items, err := m.popN(int(op - opTuple1 + 1))
		if err != nil {
			return err
		}
		return m.push(&Tuple{Items: items})
	case opTuple:
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.push(&Tuple{Items: items})
	case opEmptyList:
		return m.push(&List{})
	case opEmptyDict:
		return m.push(NewDict())
	case opEmptySet:
		return m.push(&Set{})
	case opFrame:
		b, err := m.take(8)
		if err == nil && binary.LittleEndian.Uint64(b) > uint64(m.in.Len()) {
			err = fmt.Errorf("pickle is cut off: a frame of %d bytes is announced, %d are left", binary.LittleEndian.Uint64(b), m.in.Len())
		}
		return err
	case opMemoize:
		v, err := m.top()
		if err != nil {
			return err
		}
		return m.keep(uint32(len(m.memo)), v)
	case opAddItems:
		return m.addItems()
	case opFrozenSet:
		items, err := m.popMark()
		if err != nil {
			return err
		}
		return m.push(&Set{Items: items})
	case opStackGlobal:
		return m.stackGlobal()
	case opNewObjectEx:
		items, err := m.popN(3)
		if err != nil {
			return err
		}
		if d, ok := items[2].(*Dict); !ok || d.Len() > 0 {
			if _, ok := items[0].(*foreign); !ok {
				return fmt.Errorf("%w: a %s is called with keyword arguments", ErrRefused, kindOf(items[0]))
			}
		}
		v, err := m.call(items[0], items[1])
		if err != nil {
			return err
		}
		return m.push(v)
	case opAppend, opAppends:
		return m.extend(op)
	case opSetItem, opSetItems:
		return m.assign(op)
	case opGet, opLongGet, opPut, opLongPut:
		return m.remember(op)
	case opGlobal:
		return m.global()
	case opReduce, opNewObject:
		items, err := m.popN(2)
		if err != nil {
			return err
		}
		v, err := m.call(items[0], items[1])
		if err != nil {
			return err
		}
		return m.push(v)
	case opBuild:
		return m.build()
	case opPersistent:
		items, err := m.popN(1)
		if err != nil {
			return err
		}
		s, err := m.persistent(items[0])
		if err != nil {
			return err
		}
		return m.push(s)
	}
	return fmt.Errorf("%w: opcode %#02x (%q) is not used in checkpoints", ErrRefused, op, rune(op))
}

func (m *machine) push(v Value) error {
	if err := m.charge(1); err != nil {
		return err
	}
	m.stack = append(m.stack, v)
	return nil
}

// charge counts values made. Whatever copies a remembered value counts every element: a few bytes of pickle
// can ask for the same copy again and again.
func (m *machine) charge(n int) error {
	if m.objects += n; m.objects > maxObjects {
		return fmt.Errorf("%w: more than %d values", ErrRefused, maxObjects)
	}
	return nil
}

// floor is where the innermost mark stands: nothing below it may be popped.
func (m *machine) floor() int {
	if len(m.marks) == 0 {
		return 0
	}
	return m.marks[len(m.marks)-1]
}

func (m *machine) popN(n int) ([]Value, error) {
	if len(m.stack)-n < m.floor() {
		return nil, fmt.Errorf("stack is short of values")
	}
	items := append([]Value(nil), m.stack[len(m.stack)-n:]...)
	m.stack = m.stack[:len(m.stack)-n]
	return items, nil
}

func (m *machine) popMark() ([]Value, error) {
	if len(m.marks) == 0 {
		return nil, fmt.Errorf("no mark on the stack")
	}
	items := append([]Value(nil), m.stack[m.floor():]...)
	m.stack = m.stack[:m.floor()]
	m.marks = m.marks[:len(m.marks)-1]
	return items, nil
}

func (m *machine) top() (Value, error) {
	if len(m.stack) <= m.floor() {
		return nil, fmt.Errorf("stack is short of values")
	}
	return m.stack[len(m.stack)-1], nil
}

func (m *machine) take(n int64) ([]byte, error) {
	if n > int64(m.in.Len()) {
		return nil, fmt.Errorf("pickle is cut off: %d bytes are announced, %d are left", n, m.in.Len())
	}
	b := make([]byte, n)
	_, err := io.ReadFull(m.in, b)
	return b, err
}

func (m *machine) extend(op byte) error {
	var items []Value
	var err error
	if op == opAppend {
		items, err = m.popN(1)
	} else {
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if _, ok := v.(*foreign); ok {
		return nil // an object's parts go where it goes
	}
	list, ok := v.(*List)
	if !ok {
		return fmt.Errorf("items are appended to a %s", kindOf(v))
	}
	list.Items = append(list.Items, items...)
	return nil
}

func (m *machine) assign(op byte) error {
	var items []Value
	var err error
	if op == opSetItem {
		items, err = m.popN(2)
	} else {
		items, err = m.popMark()
	}
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if _, ok := v.(*foreign); ok {
		return nil
	}
	d, ok := v.(*Dict)
	if !ok {
		return fmt.Errorf("entries are set in a %s", kindOf(v))
	}
	return d.setPairs(items)
}

func (d *Dict) setPairs(items []Value) error {
	if len(items)%2 != 0 {
		return fmt.Errorf("a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		if f, ok := items[i].(*foreign); ok { // an object as a key: its entry will be left out
			d.Set("a "+f.class, f)
			continue
		}
		if !keyable(items[i]) {
			return fmt.Errorf("a %s as a key", kindOf(items[i]))
		}
		d.Set(items[i], items[i+1])
	}
	return nil
}

func (m *machine) remember(op byte) error {
	width := int64(1)
	if op == opLongGet || op == opLongPut {
		width = 4
	}
	b, err := m.take(width)
	if err != nil {
		return err
	}
	n := uint32(b[0])
	if width == 4 {
		n = binary.LittleEndian.Uint32(b)
	}
	if op == opGet || op == opLongGet {
		v, ok := m.memo[n]
		if !ok {
			return fmt.Errorf("memo %d is read before it is written", n)
		}
		return m.push(v)
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	return m.keep(n, v)
}

func (m *machine) keep(n uint32, v Value) error {
	if len(m.memo) >= maxMemo {
		return fmt.Errorf("%w: more than %d values are remembered", ErrRefused, maxMemo)
	}
	m.memo[n] = v
	return nil
}

func (m *machine) line() (string, error) {
	var b []byte
	for {
		c, err := m.in.ReadByte()
		if err != nil {
			return "", fmt.Errorf("pickle is cut off in a name")
		}
		if c == '\n' {
			return string(b), nil
		}
		if b = append(b, c); len(b) > 512 {
			return "", fmt.Errorf("%w: a name of more than 512 bytes", ErrRefused)
		}
	}
}

func (m *machine) global() error {
	module, err := m.line()
	if err != nil {
		return err
	}
	name, err := m.line()
	if err != nil {
		return err
	}
	g, err := lookupName(module, name)
	if err != nil {
		return err
	}
	return m.push(g)
}

// build sets attributes: only an OrderedDict may have any.
func (m *machine) build() error {
	items, err := m.popN(1)
	if err != nil {
		return err
	}
	v, err := m.top()
	if err != nil {
		return err
	}
	if _, ok := v.(*foreign); ok {
		return nil
	}
	d, ok := v.(*Dict)
	attrs, isDict := items[0].(*Dict)
	if !ok || !d.Ordered || !isDict {
		return fmt.Errorf("%w: state of a %s", ErrRefused, kindOf(v))
	}
	d.Attrs = attrs
	return nil
}
