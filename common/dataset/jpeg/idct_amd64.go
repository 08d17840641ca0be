package jpeg

import "golang.org/x/sys/cpu"

var avx2 = cpu.X86.HasAVX2

func whole(b *[64]int32, dst []byte, stride int) {
	if avx2 {
		_ = dst[7*stride+7]
		wholeAVX2(b, &dst[0], stride)
		return
	}
	wholeGo(b, dst, stride)
}

// wholeAVX2 is wholeGo with eight rows, then eight columns, at once.
//
//go:noescape
func wholeAVX2(b *[64]int32, dst *byte, stride int)
