package likeness

import "golang.org/x/sys/cpu"

var avx2 = cpu.X86.HasAVX2 && cpu.X86.HasFMA

// near tells of each hash whether fewer than below bits of it are others than
// hash's: bit i%8 of to[i/8]. There are a multiple of 8 hashes.
func near(to []byte, hashes []uint64, hash, below uint64) {
	if n := len(hashes) / 8; avx2 && n > 0 {
		_ = to[n-1]
		nearAVX2(&to[0], &hashes[0], n, hash, below)
		return
	}
	nearGo(to, hashes, hash, below)
}

// anyLike reports whether one of the parts correlates with s by score or more.
// parts lie one behind the other, each as long as s, a multiple of 32.
func anyLike(parts, s squares, score float32) bool {
	if n := len(parts) / len(s); avx2 && n > 0 {
		return anyAVX2(&parts[0], &s[0], n, len(s), score)
	}
	return anyGo(parts, s, score)
}

// nearAVX2 is nearGo, four hashes at once.
//
//go:noescape
func nearAVX2(to *byte, hashes *uint64, eights int, hash, below uint64)

// anyAVX2 is anyGo, 32 products at once.
//
//go:noescape
func anyAVX2(parts, s *float32, count, n int, score float32) bool
