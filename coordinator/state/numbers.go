package state

import "slices"

// numbers is an ascending set of trial numbers, copied before its first change
// in a generation. It holds what is open in a sweep, so it is short.
type numbers struct {
	list []int64
	gen  uint64
}

// own copies the list once a generation: a View may have the old one.
func (s *numbers) own(gen uint64) {
	if s.gen != gen {
		s.list = append(make([]int64, 0, len(s.list)+8), s.list...)
		s.gen = gen
	}
}

// add puts a number in; one that is there stays.
func (s *numbers) add(gen uint64, n int64) {
	at, found := s.find(n)
	if found {
		return
	}
	s.own(gen)
	s.list = slices.Insert(s.list, at, n)
}

// drop takes a number out; one that is not there is no error.
func (s *numbers) drop(gen uint64, n int64) {
	at, found := s.find(n)
	if !found {
		return
	}
	s.own(gen)
	s.list = slices.Delete(s.list, at, at+1)
}

// find is a number's place; mostly behind the last, for trials are numbered as they come.
func (s *numbers) find(n int64) (int, bool) {
	if k := len(s.list); k == 0 || s.list[k-1] < n {
		return k, false
	}
	return slices.BinarySearch(s.list, n)
}
