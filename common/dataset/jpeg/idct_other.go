//go:build !amd64

package jpeg

func whole(b *[64]int32, dst []byte, stride int) {
	wholeGo(b, dst, stride)
	clear(b[:])
}

func four(b *[64]int32, dst []byte, stride int) {
	fourGo(b, dst, stride)
	clear(b[:])
}
