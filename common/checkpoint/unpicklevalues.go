package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"
)

func (m *machine) number(op byte) error {
	n := map[byte]int64{opInt1: 1, opInt2: 2, opInt4: 4, opLong1: 1, opFloat: 8}[op]
	b, err := m.take(n)
	if err != nil {
		return err
	}
	switch op {
	case opInt1:
		return m.push(int64(b[0]))
	case opInt2:
		return m.push(int64(binary.LittleEndian.Uint16(b)))
	case opInt4:
		return m.push(int64(int32(binary.LittleEndian.Uint32(b))))
	case opFloat:
		return m.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
	}
	digits, err := m.take(int64(b[0]))
	if err != nil {
		return err
	}
	v := twosComplement(digits)
	if v.IsInt64() {
		return m.push(v.Int64())
	}
	return m.push(v)
}

// twosComplement reads a little-endian signed integer.
func twosComplement(b []byte) *big.Int {
	be := make([]byte, len(b))
	for i, c := range b {
		be[len(b)-1-i] = c
	}
	v := new(big.Int).SetBytes(be)
	if len(be) > 0 && be[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(be))))
	}
	return v
}

func (m *machine) text(op byte) error {
	width := int64(4)
	switch op {
	case opShortString, opShortBytes, opShortUnicode:
		width = 1
	case opLongUnicode, opLongBytes, opByteArray:
		width = 8
	}
	b, err := m.take(width)
	if err != nil {
		return err
	}
	n := int64(b[0])
	switch width {
	case 4:
		n = int64(binary.LittleEndian.Uint32(b))
	case 8:
		long := binary.LittleEndian.Uint64(b)
		if long > maxPickle {
			return fmt.Errorf("pickle is cut off: %d bytes are announced, %d are left", long, m.in.Len())
		}
		n = int64(long)
	}
	if b, err = m.take(n); err != nil {
		return err
	}
	switch op {
	case opBytes, opShortBytes, opLongBytes, opByteArray:
		return m.push(b)
	}
	// Python 2's strings (opString) are taken as text, as Python 3 takes them, when they are.
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: a string that is not UTF-8", ErrRefused)
	}
	return m.push(string(b))
}

func (m *machine) addItems() error {
	items, err := m.popMark()
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
	set, ok := v.(*Set)
	if !ok {
		return fmt.Errorf("members are added to a %s", kindOf(v))
	}
	set.Items = append(set.Items, items...)
	return nil
}

// stackGlobal takes a module and a name off the stack; a dot in the name reaches into a class.
func (m *machine) stackGlobal() error {
	items, err := m.popN(2)
	if err != nil {
		return err
	}
	module, ok1 := items[0].(string)
	name, ok2 := items[1].(string)
	if !ok1 || !ok2 || len(module) > 512 || len(name) > 512 {
		return fmt.Errorf("%w: a name made of a %s and a %s", ErrRefused, kindOf(items[0]), kindOf(items[1]))
	}
	g, err := lookupName(module, name)
	if err != nil {
		return err
	}
	return m.push(g)
}
