package state

import "slices"

// numbers is an ascending set of trial numbers, copied before its first change
// in a generation. It holds what is open in a sweep, so it is short.
type numbers struct {
	list []int64
	gen  uint64
}

func (s *numbers) own(gen uint64) {
	if s.gen != gen {
		s.list = append(make([]int64, 0, len(s.list)+8), s.list...)
		s.gen = gen
	}
}

func (s *numbers) add(gen uint64, n int64) {
	at, found := s.find(n)
	if found {
		return
	}
	s.own(gen)
	s.list = slices.Insert(s.list, at, n)
}

func (s *numbers) drop(gen uint64, n int64) {
	at, found := s.find(n)
	if !found {
		return
	}
	s.own(gen)
	s.list = slices.Delete(s.list, at, at+1)
}

func (s *numbers) find(n int64) (int, bool) {
	if k := len(s.list); k == 0 || s.list[k-1] < n {
		return k, false
	}
	return slices.BinarySearch(s.list, n)
}
