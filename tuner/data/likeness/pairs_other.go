//go:build !amd64

package likeness

func near(to []byte, hashes []uint64, hash, below uint64) { nearGo(to, hashes, hash, below) }

func anyLike(parts, s squares, score float32) bool { return anyGo(parts, s, score) }
