#include "textflag.h"

// Bits of each half byte.
DATA ones<>+0(SB)/8, $0x0302020102010100
DATA ones<>+8(SB)/8, $0x0403030203020201
DATA ones<>+16(SB)/8, $0x0302020102010100
DATA ones<>+24(SB)/8, $0x0403030203020201
GLOBL ones<>(SB), RODATA|NOPTR, $32

DATA halves<>+0(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+8(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+16(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA halves<>+24(SB)/8, $0x0f0f0f0f0f0f0f0f
GLOBL halves<>(SB), RODATA|NOPTR, $32

// The signs of to: in which of the four hashes at from fewer than Y4 bits differ from Y0.
#define FOUR(from, a, b, to) \
	VPXOR     from, Y0, a; \
	VPSRLW    $4, a, b; \
	VPAND     Y2, a, a; \
	VPAND     Y2, b, b; \
	VPSHUFB   a, Y1, a; \
	VPSHUFB   b, Y1, b; \
	VPADDB    b, a, a; \
	VPSADBW   Y3, a, a; \
	VPCMPGTQ  a, Y4, a; \
	VMOVMSKPD a, to

// func nearAVX2(to *byte, hashes *uint64, eights int, hash, below uint64)
TEXT ·nearAVX2(SB), NOSPLIT, $0-40
	MOVQ         to+0(FP), DI
	MOVQ         hashes+8(FP), SI
	MOVQ         eights+16(FP), CX
	VPBROADCASTQ hash+24(FP), Y0
	VPBROADCASTQ below+32(FP), Y4
	VMOVDQU      ones<>(SB), Y1
	VMOVDQU      halves<>(SB), Y2
	VPXOR        Y3, Y3, Y3

eight:
	FOUR((SI), Y5, Y6, AX)
	FOUR(32(SI), Y7, Y8, BX)
	SHLQ $4, BX
	ORQ  BX, AX
	MOVB AX, (DI)
	ADDQ $64, SI
	INCQ DI
	DECQ CX
	JNZ  eight
	VZEROUPPER
	RET

// func anyAVX2(parts, s *float32, count, n int, score float32) bool
TEXT ·anyAVX2(SB), NOSPLIT, $0-41
	MOVQ  parts+0(FP), SI
	MOVQ  s+8(FP), DI
	MOVQ  count+16(FP), CX
	MOVQ  n+24(FP), DX
	VMOVSS score+32(FP), X6

part:
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
	MOVQ   DI, R8
	MOVQ   DX, R9

squares:
	VMOVUPS     (SI), Y4
	VMOVUPS     32(SI), Y5
	VMOVUPS     64(SI), Y7
	VMOVUPS     96(SI), Y8
	VFMADD231PS (R8), Y4, Y0
	VFMADD231PS 32(R8), Y5, Y1
	VFMADD231PS 64(R8), Y7, Y2
	VFMADD231PS 96(R8), Y8, Y3
	ADDQ        $128, SI
	ADDQ        $128, R8
	SUBQ        $32, R9
	JNZ         squares

	VADDPS       Y1, Y0, Y0
	VADDPS       Y3, Y2, Y2
	VADDPS       Y2, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS       X1, X0, X0
	VMOVHLPS     X0, X0, X1
	VADDPS       X1, X0, X0
	VMOVSHDUP    X0, X1
	VADDSS       X1, X0, X0
	VUCOMISS     X6, X0
	JAE          yes
	DECQ         CX
	JNZ          part
	VZEROUPPER
	MOVB $0, ret+40(FP)
	RET

yes:
	VZEROUPPER
	MOVB $1, ret+40(FP)
	RET
