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
	clear(b[:])
}

func four(b *[64]int32, dst []byte, stride int) {
	if avx2 {
		_ = dst[3*stride+3]
		fourAVX2(b, &dst[0], stride)
		return
	}
	fourGo(b, dst, stride)
	clear(b[:])
}

// wholeAVX2 is wholeGo with eight rows, then eight columns, at once; it leaves zeros.
//
//go:noescape
func wholeAVX2(b *[64]int32, dst *byte, stride int)

// fourAVX2 is fourGo with eight rows, then four columns, at once; it leaves zeros.
//
//go:noescape
func fourAVX2(b *[64]int32, dst *byte, stride int)
