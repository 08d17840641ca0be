#include "textflag.h"

// The factors of idct.go, eight of each.
#define FACTOR(name, value) \
	DATA name<>+0(SB)/4, $value; DATA name<>+4(SB)/4, $value; DATA name<>+8(SB)/4, $value; DATA name<>+12(SB)/4, $value; \
	DATA name<>+16(SB)/4, $value; DATA name<>+20(SB)/4, $value; DATA name<>+24(SB)/4, $value; DATA name<>+28(SB)/4, $value; \
	GLOBL name<>(SB), RODATA|NOPTR, $32

FACTOR(cos6, 70936)
FACTOR(sin6, 171254)
FACTOR(cos6low, 1108)
FACTOR(sin6low, 2676)
FACTOR(cos3, 3406)
FACTOR(sin3, 2276)
FACTOR(cos1, 4017)
FACTOR(sin1, 799)
FACTOR(half8, 181)
FACTOR(half14, 11585)
FACTOR(round, 524288)
FACTOR(sign, 0x80808080)
FACTOR(f2, 3784)
FACTOR(f6, 1567)
FACTOR(c2, 2896)
FACTOR(roundfour, 131072)

DATA order<>+0(SB)/4, $0
DATA order<>+4(SB)/4, $4
DATA order<>+8(SB)/4, $1
DATA order<>+12(SB)/4, $5
DATA order<>+16(SB)/4, $2
DATA order<>+20(SB)/4, $6
DATA order<>+24(SB)/4, $3
DATA order<>+28(SB)/4, $7
GLOBL order<>(SB), RODATA|NOPTR, $32

// a, b = a+b, a-b
#define BUTTERFLY(a, b, t) \
	VPSUBD b, a, t; \
	VPADDD b, a, a; \
	VMOVDQA t, b

// a, b = a*c - b*s, b*c + a*s
#define TURN(a, b, c, s, t, u) \
	VPMULLD s<>(SB), b, t; \
	VPMULLD c<>(SB), a, u; \
	VPMULLD s<>(SB), a, a; \
	VPMULLD c<>(SB), b, b; \
	VPADDD  a, b, b; \
	VPSUBD  t, u, a

// The block becomes Y0, zeros.
#define ZEROS \
	VMOVDQU Y0, (SI); \
	VMOVDQU Y0, 32(SI); \
	VMOVDQU Y0, 64(SI); \
	VMOVDQU Y0, 96(SI); \
	VMOVDQU Y0, 128(SI); \
	VMOVDQU Y0, 160(SI); \
	VMOVDQU Y0, 192(SI); \
	VMOVDQU Y0, 224(SI)

// func wholeAVX2(b *[64]int32, dst *byte, stride int)
TEXT ·wholeAVX2(SB), NOSPLIT, $0-24
	MOVQ b+0(FP), SI
	MOVQ dst+8(FP), DI
	MOVQ stride+16(FP), BX

	// Rows: lane i is row i, a register is a frequency.
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y7
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y5
	VMOVDQU 128(SI), Y1
	VMOVDQU 160(SI), Y6
	VMOVDQU 192(SI), Y3
	VMOVDQU 224(SI), Y4

	VPSLLD $17, Y0, Y0
	VPSLLD $17, Y1, Y1
	BUTTERFLY(Y0, Y1, Y8)
	TURN(Y2, Y3, cos6, sin6, Y8, Y9)
	BUTTERFLY(Y1, Y2, Y8)
	BUTTERFLY(Y0, Y3, Y9)
	VPSLLD $7, Y4, Y4
	VPSLLD $7, Y7, Y7
	BUTTERFLY(Y7, Y4, Y8)
	VPMULLD half8<>(SB), Y6, Y6
	VPMULLD half8<>(SB), Y5, Y5
	BUTTERFLY(Y7, Y5, Y8)
	BUTTERFLY(Y4, Y6, Y9)
	VPSRAD $2, Y4, Y4
	VPSRAD $2, Y7, Y7
	VPSRAD $2, Y5, Y5
	VPSRAD $2, Y6, Y6
	TURN(Y4, Y7, cos3, sin3, Y8, Y9)
	TURN(Y5, Y6, cos1, sin1, Y10, Y11)
	BUTTERFLY(Y0, Y7, Y8)
	BUTTERFLY(Y1, Y6, Y9)
	BUTTERFLY(Y2, Y5, Y10)
	BUTTERFLY(Y3, Y4, Y11)

	// Turned over: a register is a row from here, Y8 to Y15 in order.
	VPUNPCKLDQ  Y1, Y0, Y8
	VPUNPCKHDQ  Y1, Y0, Y9
	VPUNPCKLDQ  Y3, Y2, Y10
	VPUNPCKHDQ  Y3, Y2, Y11
	VPUNPCKLDQ  Y5, Y4, Y12
	VPUNPCKHDQ  Y5, Y4, Y13
	VPUNPCKLDQ  Y7, Y6, Y14
	VPUNPCKHDQ  Y7, Y6, Y15
	VPUNPCKLQDQ Y10, Y8, Y0
	VPUNPCKHQDQ Y10, Y8, Y1
	VPUNPCKLQDQ Y11, Y9, Y2
	VPUNPCKHQDQ Y11, Y9, Y3
	VPUNPCKLQDQ Y14, Y12, Y4
	VPUNPCKHQDQ Y14, Y12, Y5
	VPUNPCKLQDQ Y15, Y13, Y6
	VPUNPCKHQDQ Y15, Y13, Y7
	VPERM2I128  $0x20, Y4, Y0, Y8
	VPERM2I128  $0x31, Y4, Y0, Y12
	VPERM2I128  $0x20, Y5, Y1, Y9
	VPERM2I128  $0x31, Y5, Y1, Y13
	VPERM2I128  $0x20, Y6, Y2, Y10
	VPERM2I128  $0x31, Y6, Y2, Y14
	VPERM2I128  $0x20, Y7, Y3, Y11
	VPERM2I128  $0x31, Y7, Y3, Y15

	// Columns: x0 Y8, x7 Y9, x2 Y10, x5 Y11, x1 Y12, x6 Y13, x3 Y14, x4 Y15.
	VPADDD round<>(SB), Y8, Y8
	BUTTERFLY(Y8, Y12, Y0)
	VPSRAD $2, Y8, Y8
	VPSRAD $2, Y12, Y12
	VPSRAD $13, Y10, Y10
	VPSRAD $13, Y14, Y14
	TURN(Y10, Y14, cos6low, sin6low, Y0, Y1)
	BUTTERFLY(Y12, Y10, Y0)
	BUTTERFLY(Y8, Y14, Y1)
	BUTTERFLY(Y9, Y15, Y2)
	VPSRAD $13, Y11, Y11
	VPSRAD $13, Y13, Y13
	VPMULLD half14<>(SB), Y11, Y11
	VPMULLD half14<>(SB), Y13, Y13
	BUTTERFLY(Y9, Y11, Y0)
	BUTTERFLY(Y15, Y13, Y1)
	VPSRAD $14, Y15, Y15
	VPSRAD $14, Y9, Y9
	VPSRAD $14, Y11, Y11
	VPSRAD $14, Y13, Y13
	TURN(Y15, Y9, cos3, sin3, Y0, Y1)
	TURN(Y11, Y13, cos1, sin1, Y2, Y3)
	BUTTERFLY(Y8, Y9, Y0)
	BUTTERFLY(Y12, Y13, Y1)
	BUTTERFLY(Y10, Y11, Y2)
	BUTTERFLY(Y14, Y15, Y3)
	VPSRAD $18, Y8, Y8
	VPSRAD $18, Y12, Y12
	VPSRAD $18, Y10, Y10
	VPSRAD $18, Y14, Y14
	VPSRAD $18, Y15, Y15
	VPSRAD $18, Y11, Y11
	VPSRAD $18, Y13, Y13
	VPSRAD $18, Y9, Y9

	// The rows in order are Y8, Y12, Y10, Y14, Y15, Y11, Y13, Y9: into bytes
	// that keep to -128 and 127, then up by 128.
	VPACKSSDW Y12, Y8, Y0
	VPACKSSDW Y14, Y10, Y1
	VPACKSSDW Y11, Y15, Y2
	VPACKSSDW Y9, Y13, Y3
	VPACKSSWB Y1, Y0, Y0
	VPACKSSWB Y3, Y2, Y2
	VMOVDQU   order<>(SB), Y4
	VPXOR     sign<>(SB), Y0, Y0
	VPXOR     sign<>(SB), Y2, Y2
	VPERMD    Y0, Y4, Y0
	VPERMD    Y2, Y4, Y2

	VMOVQ        X0, (DI)
	VPEXTRQ      $1, X0, (DI)(BX*1)
	LEAQ         (DI)(BX*2), DI
	VEXTRACTI128 $1, Y0, X1
	VMOVQ        X1, (DI)
	VPEXTRQ      $1, X1, (DI)(BX*1)
	LEAQ         (DI)(BX*2), DI
	VMOVQ        X2, (DI)
	VPEXTRQ      $1, X2, (DI)(BX*1)
	LEAQ         (DI)(BX*2), DI
	VEXTRACTI128 $1, Y2, X3
	VMOVQ        X3, (DI)
	VPEXTRQ      $1, X3, (DI)(BX*1)
	VPXOR        Y0, Y0, Y0
	ZEROS
	VZEROUPPER
	RET

// a = a*c - b*s
#define LESS(a, b, c, s, t) \
	VPMULLD c<>(SB), a, a; \
	VPMULLD s<>(SB), b, t; \
	VPSUBD  t, a, a

// func fourAVX2(b *[64]int32, dst *byte, stride int)
TEXT ·fourAVX2(SB), NOSPLIT, $0-24
	MOVQ b+0(FP), SI
	MOVQ dst+8(FP), DI
	MOVQ stride+16(FP), BX

	// Rows: lane i is row i, Yk is frequency k.
	VMOVDQU (SI), Y0
	VMOVDQU 32(SI), Y1
	VMOVDQU 64(SI), Y2
	VMOVDQU 96(SI), Y3
	VMOVDQU 160(SI), Y5
	VMOVDQU 192(SI), Y6
	VMOVDQU 224(SI), Y7
	LESS(Y1, Y7, cos1, sin1, Y8)
	LESS(Y2, Y6, f2, f6, Y9)
	LESS(Y3, Y5, cos3, sin3, Y10)
	VPSRAD  $12, Y1, Y1
	VPSRAD  $12, Y2, Y2
	VPSRAD  $12, Y3, Y3
	BUTTERFLY(Y0, Y2, Y8)
	VPMULLD c2<>(SB), Y0, Y0
	VPMULLD c2<>(SB), Y2, Y2
	TURN(Y3, Y1, f2, f6, Y8, Y9) // Y3 = s3*f2 - s1*f6, Y1 = s1*f2 + s3*f6
	BUTTERFLY(Y0, Y1, Y8)        // first and fourth
	BUTTERFLY(Y2, Y3, Y9)        // third and second
	VPSRAD  $8, Y0, Y0
	VPSRAD  $8, Y1, Y1
	VPSRAD  $8, Y2, Y2
	VPSRAD  $8, Y3, Y3

	// Turned over: Y4 has rows 0 and 4, Y5 1 and 5, Y6 2 and 6, Y7 3 and 7.
	VPUNPCKLDQ  Y3, Y0, Y8
	VPUNPCKHDQ  Y3, Y0, Y9
	VPUNPCKLDQ  Y1, Y2, Y10
	VPUNPCKHDQ  Y1, Y2, Y11
	VPUNPCKLQDQ Y10, Y8, Y4
	VPUNPCKHQDQ Y10, Y8, Y5
	VPUNPCKLQDQ Y11, Y9, Y6
	VPUNPCKHQDQ Y11, Y9, Y7

	// Columns, in the lower halves; what is in the upper ones counts for nothing.
	VEXTRACTI128 $1, Y5, X13
	VEXTRACTI128 $1, Y6, X14
	VEXTRACTI128 $1, Y7, X15
	LESS(Y5, Y15, cos1, sin1, Y8)
	LESS(Y6, Y14, f2, f6, Y9)
	LESS(Y7, Y13, cos3, sin3, Y10)
	VPSRAD  $12, Y5, Y5
	VPSRAD  $12, Y6, Y6
	VPSRAD  $12, Y7, Y7
	BUTTERFLY(Y4, Y6, Y8)
	VPMULLD c2<>(SB), Y4, Y4
	VPMULLD c2<>(SB), Y6, Y6
	VPADDD  roundfour<>(SB), Y4, Y4
	VPADDD  roundfour<>(SB), Y6, Y6
	TURN(Y7, Y5, f2, f6, Y8, Y9)
	BUTTERFLY(Y4, Y5, Y8)
	BUTTERFLY(Y6, Y7, Y9)
	VPSRAD  $18, Y4, Y4
	VPSRAD  $18, Y5, Y5
	VPSRAD  $18, Y6, Y6
	VPSRAD  $18, Y7, Y7

	// The rows in order are Y4, Y7, Y6, Y5.
	VPACKSSDW X7, X4, X0
	VPACKSSDW X5, X6, X1
	VPACKSSWB X1, X0, X0
	VPXOR     sign<>(SB), X0, X0
	VMOVD     X0, (DI)
	VPEXTRD   $1, X0, (DI)(BX*1)
	LEAQ      (DI)(BX*2), DI
	VPEXTRD   $2, X0, (DI)
	VPEXTRD   $3, X0, (DI)(BX*1)
	VPXOR     Y0, Y0, Y0
	ZEROS
	VZEROUPPER
	RET
