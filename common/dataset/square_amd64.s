#include "textflag.h"

#define EIGHT(name, value) \
	DATA name<>+0(SB)/4, $value; DATA name<>+4(SB)/4, $value; DATA name<>+8(SB)/4, $value; DATA name<>+12(SB)/4, $value; \
	DATA name<>+16(SB)/4, $value; DATA name<>+20(SB)/4, $value; DATA name<>+24(SB)/4, $value; DATA name<>+28(SB)/4, $value; \
	GLOBL name<>(SB), RODATA|NOPTR, $32

EIGHT(half, 2097152)
EIGHT(most, 255)
EIGHT(middle, 128)
EIGHT(luma, 0x10101)
EIGHT(redcr, 91881)
EIGHT(greencb, 22554)
EIGHT(greencr, 46802)
EIGHT(bluecb, 116130)

DATA order<>+0(SB)/4, $0
DATA order<>+4(SB)/4, $4
DATA order<>+8(SB)/4, $1
DATA order<>+12(SB)/4, $5
DATA order<>+16(SB)/4, $2
DATA order<>+20(SB)/4, $6
DATA order<>+24(SB)/4, $3
DATA order<>+28(SB)/4, $7
GLOBL order<>(SB), RODATA|NOPTR, $32

// func horizontalAVX2(dst, src *byte, first, weights *int32, pairs, n int)
TEXT ·horizontalAVX2(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ first+16(FP), R8
	MOVQ weights+24(FP), DX
	MOVQ pairs+32(FP), R9
	MOVQ n+40(FP), R10
	VMOVDQU half<>(SB), X15

pixel:
	MOVLQSX (R8), R11
	LEAQ    (SI)(R11*4), R11
	VMOVDQA X15, X0 // upper half zero
	MOVQ    R9, CX

pair:
	VPMOVZXBD (R11), Y1
	VPMULLD   (DX), Y1, Y1
	VPADDD    Y1, Y0, Y0
	ADDQ      $8, R11
	ADDQ      $32, DX
	DECQ      CX
	JNZ       pair

	VEXTRACTI128 $1, Y0, X1
	VPADDD       X1, X0, X0
	VPSRAD       $22, X0, X0
	VPACKSSDW    X0, X0, X0
	VPACKUSWB    X0, X0, X0
	VMOVD        X0, (DI)
	ADDQ         $3, DI
	ADDQ         $4, R8
	DECQ         R10
	JNZ          pixel
	VZEROUPPER
	RET

// func verticalAVX2(dst, src *byte, stride int, weights *int32, taps, n int)
TEXT ·verticalAVX2(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	MOVQ stride+16(FP), BX
	MOVQ weights+24(FP), DX
	MOVQ taps+32(FP), R9
	MOVQ n+40(FP), R10
	VMOVDQU half<>(SB), Y15
	VMOVDQU order<>(SB), Y14

bytes:
	VMOVDQA Y15, Y0
	VMOVDQA Y15, Y1
	VMOVDQA Y15, Y2
	VMOVDQA Y15, Y3
	MOVQ    SI, R11
	MOVQ    DX, R12
	MOVQ    R9, CX

tap:
	VPBROADCASTD (R12), Y8
	VPMOVZXBD    (R11), Y4
	VPMOVZXBD    8(R11), Y5
	VPMOVZXBD    16(R11), Y6
	VPMOVZXBD    24(R11), Y7
	VPMULLD      Y8, Y4, Y4
	VPMULLD      Y8, Y5, Y5
	VPMULLD      Y8, Y6, Y6
	VPMULLD      Y8, Y7, Y7
	VPADDD       Y4, Y0, Y0
	VPADDD       Y5, Y1, Y1
	VPADDD       Y6, Y2, Y2
	VPADDD       Y7, Y3, Y3
	ADDQ         BX, R11
	ADDQ         $4, R12
	DECQ         CX
	JNZ          tap

	VPSRAD    $22, Y0, Y0
	VPSRAD    $22, Y1, Y1
	VPSRAD    $22, Y2, Y2
	VPSRAD    $22, Y3, Y3
	VPACKSSDW Y1, Y0, Y0
	VPACKSSDW Y3, Y2, Y2
	VPACKUSWB Y2, Y0, Y0
	VPERMD    Y0, Y14, Y0
	VMOVDQU   Y0, (DI)
	ADDQ      $32, DI
	ADDQ      $32, SI
	SUBQ      $32, R10
	JNZ       bytes
	VZEROUPPER
	RET

// func fullRangeAVX2(dst, luma, cb, cr *byte, n, shift int)
TEXT ·fullRangeAVX2(SB), NOSPLIT, $0-48
	MOVQ dst+0(FP), DI
	MOVQ luma+8(FP), SI
	MOVQ cb+16(FP), R8
	MOVQ cr+24(FP), R9
	MOVQ n+32(FP), R10
	MOVQ shift+40(FP), R11
	VPXOR   Y14, Y14, Y14
	VMOVDQU most<>(SB), Y13
	VMOVDQU middle<>(SB), Y12
	VMOVDQU luma<>(SB), Y11
	VMOVDQU redcr<>(SB), Y10
	VMOVDQU greencb<>(SB), Y9
	VMOVDQU greencr<>(SB), Y8
	VMOVDQU bluecb<>(SB), Y7

eight:
	TESTQ R11, R11
	JNZ   halved
	VPMOVZXBD (R8), Y1
	VPMOVZXBD (R9), Y2
	ADDQ      $8, R8
	ADDQ      $8, R9
	JMP       both

halved:
	VMOVD      (R8), X1
	VMOVD      (R9), X2
	VPUNPCKLBW X1, X1, X1
	VPUNPCKLBW X2, X2, X2
	VPMOVZXBD  X1, Y1
	VPMOVZXBD  X2, Y2
	ADDQ       $4, R8
	ADDQ       $4, R9

both:
	VPMOVZXBD (SI), Y0
	VPMULLD   Y11, Y0, Y0
	VPSUBD    Y12, Y1, Y1
	VPSUBD    Y12, Y2, Y2
	VPMULLD   Y10, Y2, Y3
	VPMULLD   Y9, Y1, Y4
	VPMULLD   Y8, Y2, Y5
	VPMULLD   Y7, Y1, Y6
	VPADDD    Y3, Y0, Y3 // red
	VPADDD    Y6, Y0, Y6 // blue
	VPSUBD    Y4, Y0, Y4
	VPSUBD    Y5, Y4, Y4 // green
	VPSRAD    $16, Y3, Y3
	VPSRAD    $16, Y4, Y4
	VPSRAD    $16, Y6, Y6
	VPMAXSD   Y14, Y3, Y3
	VPMAXSD   Y14, Y4, Y4
	VPMAXSD   Y14, Y6, Y6
	VPMINSD   Y13, Y3, Y3
	VPMINSD   Y13, Y4, Y4
	VPMINSD   Y13, Y6, Y6
	VPSLLD    $8, Y4, Y4
	VPSLLD    $16, Y6, Y6
	VPOR      Y4, Y3, Y3
	VPOR      Y6, Y3, Y3
	VMOVDQU   Y3, (DI)
	ADDQ      $32, DI
	ADDQ      $8, SI
	SUBQ      $8, R10
	JNZ       eight
	VZEROUPPER
	RET
