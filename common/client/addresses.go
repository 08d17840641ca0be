package client

import (
	"slices"
	"sync"
)

// addresses is the ordered set of coordinators a client may call and the one
// it calls first.
type addresses struct {
	mu      sync.Mutex
	given   []string
	learned []string
	current string
}

// newAddresses begins with the first of those given.
func newAddresses(given []string) *addresses {
	s := &addresses{}
	for _, a := range given {
		if !slices.Contains(s.given, a) {
			s.given = append(s.given, a)
		}
	}
	s.current = s.given[0]
	return s
}

// list is for the holder of mu: those given stay, whatever the cluster tells.
func (s *addresses) list() []string {
	out := slices.Clone(s.given)
	for _, a := range s.learned {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *addresses) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

// learn replaces what the cluster told before. An empty list is no news.
func (s *addresses) learn(addrs []string) {
	fresh := make([]string, 0, len(addrs))
	for _, a := range addrs {
		if a != "" && !slices.Contains(fresh, a) {
			fresh = append(fresh, a)
		}
	}
	if len(fresh) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learned = fresh
	if !slices.Contains(s.list(), s.current) {
		s.current = s.given[0]
	}
}

func (s *addresses) first() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// next names the address to try after failed: the one behind it in the list.
// When failed is still the first choice of everyone, the choice moves along,
// so that one failure is found once and not by every caller.
func (s *addresses) next(failed string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.list()
	n := l[(slices.Index(l, failed)+1)%len(l)]
	if s.current == failed {
		s.current = n
	}
	return n
}

// prefer has the next calls go to addr first, if it is known.
func (s *addresses) prefer(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(s.list(), addr) {
		s.current = addr
	}
}
