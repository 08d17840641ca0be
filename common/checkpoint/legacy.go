package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
)

// The stream form (torch.save before 1.6, or _use_new_zipfile_serialization=False): five pickles one after the
// other (magic number, protocol version, system, value, storage keys), then each storage as a count of
// elements (int64) and its bytes.

const legacyProtocol = 1001

var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

func readLegacy(size int64, src bytesAt) (root Value, leftOut []string, err error) {
	// Only the head is taken as pickles; its length is not written anywhere.
	head, err := src.bytesAt(0, min(size, maxPickle))
	if err != nil {
		return nil, nil, err
	}
	in := bytes.NewReader(head)
	m := newMachine(in)
	magic, err := m.load()
	if err != nil {
		return nil, nil, err
	}
	if n, ok := magic.(*big.Int); !ok || n.Cmp(legacyMagic) != 0 {
		return nil, nil, errors.New("a pickle, but not one of torch.save (no magic number)")
	}
	if version, err := m.load(); err != nil {
		return nil, nil, err
	} else if version != int64(legacyProtocol) {
		return nil, nil, fmt.Errorf("stream form of version %v, only %d is read", version, legacyProtocol)
	}
	system, err := m.load()
	if err != nil {
		return nil, nil, err
	}
	if d, ok := system.(*Dict); ok {
		if little, ok := Lookup[bool](d, "little_endian"); ok && !little {
			return nil, nil, fmt.Errorf("%w: written on a big-endian machine", ErrRefused)
		}
	}
	if root, err = m.load(); err != nil {
		return nil, nil, err
	}
	if leftOut, err = withoutForeign(root); err != nil {
		return nil, nil, err
	}
	keys, err := m.load()
	if err != nil {
		return nil, nil, err
	}
	list, ok := keys.(*List)
	if !ok {
		return nil, nil, fmt.Errorf("the list of storages is a %s", kindOf(keys))
	}
	at, err := in.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, nil, err
	}
	for _, k := range list.Items {
		key, _ := k.(string)
		s, ok := m.storages[key]
		if !ok || s.data != nil {
			return nil, nil, fmt.Errorf("storage %v is listed, but no tensor has it, or twice", k)
		}
		count, err := src.bytesAt(at, 8)
		if err != nil {
			return nil, nil, fmt.Errorf("storage %q: %w", key, err)
		}
		if n := int64(binary.LittleEndian.Uint64(count)); n != s.numel {
			return nil, nil, fmt.Errorf("storage %q has %d elements; %d are announced", key, n, s.numel)
		}
		at += 8
		bytes := s.numel * int64(s.dtype.Size())
		if s.data, err = src.bytesAt(at, bytes); err != nil {
			return nil, nil, fmt.Errorf("storage %q: %w", key, err)
		}
		at += bytes
	}
	err = m.materialise(size, func(s *storage) ([]byte, error) {
		if s.numel == 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("storage %q is missing from the file", s.key)
	})
	return root, leftOut, err
}
