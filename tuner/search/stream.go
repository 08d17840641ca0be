package search

import (
	"math/rand/v2"
)

// Salts keep the streams of one trial apart.
const (
	saltPoint    = 0x9e3779b97f4a7c15 // the method's own draws
	saltDistinct = 0xd1b54a32d192ed03 // looking for an untried point
	saltWeights  = 0xa0761d6478bd642f // of several objectives
	saltNudge    = 0xe7037ed1a0b428db // moving results apart
	saltDesign   = 0x8cb92ba72f3d8dd7 // the initial design; keyed by the sweep alone
)

// stream returns the random stream of one trial of a sweep.
func stream(seed uint64, number int64, salt uint64) *rand.Rand {
	return rand.New(source(seed, number, salt))
}

// source keys a generator by seed, trial and purpose: no draw depends on how many were made before,
// by whom or for what.
func source(seed uint64, number int64, salt uint64) *rand.PCG {
	return rand.NewPCG(scramble(seed^salt), scramble(uint64(number)*0xff51afd7ed558ccd+salt))
}

// scramble is the finaliser of SplitMix64: near seeds give far streams.
func scramble(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
