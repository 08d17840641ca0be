package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// The opcodes of the pickle protocol that checkpoints use.
const (
	opProto           = 0x80
	opStop            = '.'
	opMark            = '('
	opNone            = 'N'
	opTrue            = 0x88
	opFalse           = 0x89
	opInt4            = 'J'
	opInt1            = 'K'
	opInt2            = 'M'
	opLong1           = 0x8a
	opFloat           = 'G'
	opUnicode         = 'X'
	opString          = 'T'
	opShortString     = 'U'
	opBytes           = 'B'
	opShortBytes      = 'C'
	opEmptyTuple      = ')'
	opTuple           = 't'
	opTuple1          = 0x85
	opTuple2          = 0x86
	opTuple3          = 0x87
	opEmptyList       = ']'
	opAppend          = 'a'
	opAppends         = 'e'
	opEmptyDict       = '}'
	opSetItem         = 's'
	opSetItems        = 'u'
	opEmptySet        = 0x8f
	opGlobal          = 'c'
	opReduce          = 'R'
	opBuild           = 'b'
	opNewObject       = 0x81
	opPersistent      = 'Q'
	opGet             = 'h'
	opLongGet         = 'j'
	opPut             = 'q'
	opLongPut         = 'r'
	opFrame           = 0x95 // from here on of protocol 4 and 5, which are read only
	opMemoize         = 0x94
	opStackGlobal     = 0x93
	opNewObjectEx     = 0x92
	opFrozenSet       = 0x91
	opAddItems        = 0x90
	opShortUnicode    = 0x8c
	opLongUnicode     = 0x8d
	opLongBytes       = 0x8e
	opByteArray       = 0x96
	maxDepth          = 64   // nesting of values, written or read
	batch             = 1000 // items a SETITEMS or APPENDS takes, as Python's pickler has it
	writtenStorageDev = "cpu"
)

// pickler writes protocol 2, with only the opcodes and names that torch.load(weights_only=True) takes since
// PyTorch 2.0. (1.13, the first with the option, knew neither floats nor bytes: there such a file needs
// weights_only=False, and a bare state loads either way.)
type pickler struct {
	out      bytes.Buffer
	memo     map[string]int // opcode and payload of strings and names -> memo number
	storages []*Tensor      // by key; their Data are the payloads
	keys     map[storageID]int
}

type storageID struct {
	at    *byte
	bytes int
	dtype DType
}

func encodePickle(root Value) ([]byte, []*Tensor, error) {
	p := &pickler{memo: map[string]int{}, keys: map[storageID]int{}}
	p.out.Write([]byte{opProto, 2})
	if err := p.value(root, 0); err != nil {
		return nil, nil, err
	}
	p.out.WriteByte(opStop)
	return p.out.Bytes(), p.storages, nil
}

func (p *pickler) value(v Value, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("values are nested deeper than %d (or contain themselves)", maxDepth)
	}
	switch v := v.(type) {
	case nil:
		p.out.WriteByte(opNone)
	case bool:
		p.boolean(v)
	case int:
		p.integer(int64(v))
	case int64:
		p.integer(v)
	case *big.Int:
		if v.IsInt64() {
			p.integer(v.Int64())
			return nil
		}
		return p.long(v)
	case float64:
		p.float(v)
	case complex128:
		p.global("__builtin__", "complex")
		p.float(real(v))
		p.float(imag(v))
		p.out.Write([]byte{opTuple2, opReduce})
	case string:
		return p.text(v)
	case []byte:
		return p.bytes(v)
	case *List:
		p.out.WriteByte(opEmptyList)
		return p.batches(len(v.Items), opAppends, func(i int) error { return p.value(v.Items[i], depth+1) })
	case *Tuple:
		return p.tuple(v.Items, depth)
	case *Set:
		// set([...]), as Python writes it at protocol 2.
		p.global("__builtin__", "set")
		if err := p.value(&List{Items: v.Items}, depth+1); err != nil {
			return err
		}
		p.out.Write([]byte{opTuple1, opReduce})
	case *Dict:
		return p.dict(v, depth)
	case *Tensor:
		return p.tensor(v)
	case DType:
		if v.Size() == 0 {
			return fmt.Errorf("unknown %v", v)
		}
		p.global("torch", v.String())
	case Size:
		p.global("torch", "Size")
		p.ints(v)
		p.out.Write([]byte{opTuple1, opReduce})
	case Device:
		p.global("torch", "device")
		if err := p.text(string(v)); err != nil {
			return err
		}
		p.out.Write([]byte{opTuple1, opReduce})
	default:
		return fmt.Errorf("a %T cannot be stored in a checkpoint", v)
	}
	return nil
}

func (p *pickler) boolean(v bool) {
	if v {
		p.out.WriteByte(opTrue)
	} else {
		p.out.WriteByte(opFalse)
	}
}

func (p *pickler) integer(v int64) {
	switch {
	case v >= 0 && v < 1<<8:
		p.out.Write([]byte{opInt1, byte(v)})
	case v >= 0 && v < 1<<16:
		p.out.Write([]byte{opInt2, byte(v), byte(v >> 8)})
	case v >= math.MinInt32 && v <= math.MaxInt32:
		p.out.Write(binary.LittleEndian.AppendUint32([]byte{opInt4}, uint32(v)))
	default:
		p.out.Write(binary.LittleEndian.AppendUint64([]byte{opLong1, 8}, uint64(v)))
	}
}

// long writes two's complement, little-endian.
func (p *pickler) long(v *big.Int) error {
	n := v.BitLen()/8 + 1
	if n > 255 {
		return fmt.Errorf("an integer of %d bits cannot be stored", v.BitLen())
	}
	u := v
	if v.Sign() < 0 {
		u = new(big.Int).Add(v, new(big.Int).Lsh(big.NewInt(1), uint(8*n)))
	}
	b := u.FillBytes(make([]byte, n))
	p.out.Write([]byte{opLong1, byte(n)})
	for i := len(b) - 1; i >= 0; i-- {
		p.out.WriteByte(b[i])
	}
	return nil
}

func (p *pickler) float(v float64) {
	p.out.Write(binary.BigEndian.AppendUint64([]byte{opFloat}, math.Float64bits(v)))
}

// once writes an opcode with its payload, or a reference to where it was written before.
func (p *pickler) once(op []byte) {
	if n, ok := p.memo[string(op)]; ok {
		if n < 1<<8 {
			p.out.Write([]byte{opGet, byte(n)})
		} else {
			p.out.Write(binary.LittleEndian.AppendUint32([]byte{opLongGet}, uint32(n)))
		}
		return
	}
	n := len(p.memo)
	p.memo[string(op)] = n
	p.out.Write(op)
	if n < 1<<8 {
		p.out.Write([]byte{opPut, byte(n)})
	} else {
		p.out.Write(binary.LittleEndian.AppendUint32([]byte{opLongPut}, uint32(n)))
	}
}

func (p *pickler) global(module, name string) {
	p.once([]byte("c" + module + "\n" + name + "\n"))
}

func (p *pickler) text(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("string %q is not UTF-8: store it as bytes", s)
	}
	if len(s) > maxPickle {
		return fmt.Errorf("a string of %d bytes: store it as a tensor", len(s))
	}
	op := append(binary.LittleEndian.AppendUint32([]byte{opUnicode}, uint32(len(s))), s...)
	if len(s) > 256 {
		p.out.Write(op) // not worth remembering
		return nil
	}
	p.once(op)
	return nil
}

// bytes writes _codecs.encode(text, "latin1"): protocol 2 has no bytes of its own.
func (p *pickler) bytes(b []byte) error {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	p.global("_codecs", "encode")
	if err := p.text(string(runes)); err != nil {
		return err
	}
	if err := p.text("latin1"); err != nil {
		return err
	}
	p.out.Write([]byte{opTuple2, opReduce})
	return nil
}

func (p *pickler) batches(n int, op byte, item func(int) error) error {
	for from := 0; from < n; from += batch {
		p.out.WriteByte(opMark)
		for i := from; i < min(from+batch, n); i++ {
			if err := item(i); err != nil {
				return err
			}
		}
		p.out.WriteByte(op)
	}
	return nil
}

func (p *pickler) tuple(items []Value, depth int) error {
	if len(items) == 0 {
		p.out.WriteByte(opEmptyTuple)
		return nil
	}
	if len(items) > 3 {
		p.out.WriteByte(opMark)
	}
	for _, v := range items {
		if err := p.value(v, depth+1); err != nil {
			return err
		}
	}
	p.out.WriteByte([]byte{opTuple1, opTuple2, opTuple3, opTuple}[min(len(items), 4)-1])
	return nil
}

func (p *pickler) ints(v []int64) {
	items := make([]Value, len(v))
	for i, n := range v {
		items[i] = n
	}
	_ = p.tuple(items, 0) // integers cannot fail
}

func (p *pickler) dict(d *Dict, depth int) error {
	if d.Ordered {
		p.global("collections", "OrderedDict")
		p.out.Write([]byte{opEmptyTuple, opReduce})
	} else {
		p.out.WriteByte(opEmptyDict)
	}
	err := p.batches(len(d.items), opSetItems, func(i int) error {
		it := d.items[i]
		if err := p.value(it.Key, depth+1); err != nil {
			return fmt.Errorf("key %v: %w", it.Key, err)
		}
		if err := p.value(it.Value, depth+1); err != nil {
			return fmt.Errorf("%v: %w", it.Key, err)
		}
		return nil
	})
	if err != nil || !d.Ordered || d.Attrs.Len() == 0 {
		return err
	}
	plain := *d.Attrs
	plain.Ordered, plain.Attrs = false, nil
	if err := p.dict(&plain, depth+1); err != nil {
		return err
	}
	p.out.WriteByte(opBuild)
	return nil
}

func (p *pickler) tensor(t *Tensor) error {
	if err := t.check(); err != nil {
		return err
	}
	id := storageID{unsafe.SliceData(t.Data), len(t.Data), t.DType}
	key, known := p.keys[id]
	if !known || len(t.Data) == 0 {
		key = len(p.storages)
		p.storages = append(p.storages, t)
		p.keys[id] = key
	}
	n := t.Numel()
	p.global("torch._utils", "_rebuild_tensor_v2")
	p.out.WriteByte(opMark)
	p.out.WriteByte(opMark)
	_ = p.text("storage") // short ASCII texts cannot fail
	p.global("torch", dtypes[t.DType].storage)
	_ = p.text(strconv.Itoa(key))
	_ = p.text(writtenStorageDev)
	p.integer(n)
	p.out.Write([]byte{opTuple, opPersistent})
	p.integer(0)
	p.ints(t.Shape)
	p.ints(contiguous(t.Shape))
	p.boolean(false)
	p.global("collections", "OrderedDict")
	p.out.Write([]byte{opEmptyTuple, opReduce, opTuple, opReduce})
	return nil
}

// contiguous returns the row-major strides of a shape, in elements, as PyTorch counts them.
func contiguous(shape []int64) []int64 {
	strides := make([]int64, len(shape))
	n := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		strides[i] = n
		n *= max(shape[i], 1)
	}
	return strides
}
