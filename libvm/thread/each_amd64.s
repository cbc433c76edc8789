#include "go_asm.h"
#include "textflag.h"

// A handler of a signal, and what it returns to. The kernel calls them on the
// thread's signal stack, with none of Go's conventions; sigreturn puts back every
// register. The handler writes one file; an error goes to ·each.
TEXT onSignal<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $257, AX // openat
	MOVQ ·each+eachCall_dir(SB), DI
	MOVQ ·each+eachCall_path(SB), SI
	MOVQ $0x80001, DX // O_WRONLY|O_CLOEXEC
	XORQ R10, R10
	SYSCALL
	TESTQ AX, AX
	JLT  failed
	MOVQ AX, R12
	MOVQ AX, DI
	MOVQ $1, AX // write
	MOVQ ·each+eachCall_value(SB), SI
	MOVQ ·each+eachCall_length(SB), DX
	SYSCALL
	MOVQ AX, R13
	MOVQ $3, AX // close
	MOVQ R12, DI
	SYSCALL
	MOVQ R13, AX
	TESTQ AX, AX
	JGE  done

failed:
	MOVQ AX, ·each+eachCall_failed(SB)

done:
	RET

TEXT sigReturn<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ $15, AX // rt_sigreturn
	SYSCALL
	INT  $3

// func handlers() (handler, restorer uintptr)
TEXT ·handlers(SB), NOSPLIT, $0-16
	LEAQ onSignal<>(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ sigReturn<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
