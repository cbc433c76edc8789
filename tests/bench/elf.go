package main

import "runv/tests/harness"

// resetCode is the whole of the smallest init:
//
//	mov edi, 0xfee1dead  // LINUX_REBOOT_MAGIC1
//	mov esi, 0x28121969  // LINUX_REBOOT_MAGIC2
//	mov edx, 0x01234567  // LINUX_REBOOT_CMD_RESTART
//	mov eax, 169         // reboot(2)
//	syscall
//	hlt                  // not reached
var resetCode = [...]byte{
	0xbf, 0xad, 0xde, 0xe1, 0xfe,
	0xbe, 0x69, 0x19, 0x12, 0x28,
	0xba, 0x67, 0x45, 0x23, 0x01,
	0xb8, 0xa9, 0x00, 0x00, 0x00,
	0x0f, 0x05,
	0xf4,
}

// resetProgram resets the machine, which ends a microvm: it has no other switch.
func resetProgram() []byte { return harness.Program(resetCode[:]) }
