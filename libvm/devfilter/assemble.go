package devfilter

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// insn is struct bpf_insn of <linux/bpf.h>: code, dst_reg:4 and src_reg:4, off, imm.
type insn struct {
	code     uint8
	dst, src uint8
	off      int16
	imm      int32
}

// Registers of the program. The context, struct bpf_cgroup_dev_ctx of
// <linux/bpf.h>, comes in r1:
//
//	__u32 access_type  0   (BPF_DEVCG_ACC_* << 16) | BPF_DEVCG_DEV_*
//	__u32 major        4
//	__u32 minor        8
const (
	regResult  = 0 // 1: allowed
	regContext = 1
	regKind    = 2 // BPF_DEVCG_DEV_*
	regLeft    = 3 // BPF_DEVCG_ACC_* bits that no rule decided yet
	regMajor   = 4
	regMinor   = 5
)

const (
	opLoad  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W
	opMovX  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	opMovK  = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_K
	opAndK  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	opRshK  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	opJneK  = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	opJsetK = unix.BPF_JMP32 | unix.BPF_JSET | unix.BPF_K
	opExit  = unix.BPF_JMP | unix.BPF_EXIT
)

// assemble writes the program: from the last rule to the first, each decides
// the bits of access it names for the devices it names. One denied bit denies
// the access; it is allowed once every bit is.
func assemble(rules []rule, rest bool) []insn {
	out := []insn{
		{code: opLoad, dst: regKind, src: regContext, off: 0},
		{code: opLoad, dst: regMajor, src: regContext, off: 4},
		{code: opLoad, dst: regMinor, src: regContext, off: 8},
		{code: opMovX, dst: regLeft, src: regKind},
		{code: opAndK, dst: regKind, imm: 0xffff},
		{code: opRshK, dst: regLeft, imm: 16},
	}
	for i := len(rules) - 1; i >= 0; i-- {
		out = append(out, block(rules[i])...)
	}
	return append(out, verdict(rest)...)
}

// block is the code of one rule. Where the rule does not match, it jumps past
// its own end.
func block(r rule) []insn {
	var body []insn
	if r.allow {
		done := verdict(true)
		body = append(body,
			insn{code: opAndK, dst: regLeft, imm: ^r.access},
			insn{code: opJneK, dst: regLeft, imm: 0, off: int16(len(done))})
		body = append(body, done...)
	} else {
		body = append(body,
			insn{code: opJsetK, dst: regLeft, imm: r.access, off: 1},
			insn{code: unix.BPF_JMP | unix.BPF_JA, off: 2})
		body = append(body, verdict(false)...)
	}
	if r.minor != anyNumber {
		body = skipUnless(regMinor, int32(uint32(r.minor)), body)
	}
	if r.major != anyNumber {
		body = skipUnless(regMajor, int32(uint32(r.major)), body)
	}
	if len(r.kinds) == 1 {
		body = skipUnless(regKind, r.kinds[0], body)
	}
	return body
}

// skipUnless runs body only if the register has the value.
func skipUnless(reg uint8, v int32, body []insn) []insn {
	return append([]insn{{code: opJneK, dst: reg, imm: v, off: int16(len(body))}}, body...)
}

func verdict(allow bool) []insn {
	var v int32
	if allow {
		v = 1
	}
	return []insn{{code: opMovK, dst: regResult, imm: v}, {code: opExit}}
}

func encode(insns []insn) []byte {
	out := make([]byte, 0, 8*len(insns))
	for _, in := range insns {
		out = append(out, in.code, in.src<<4|in.dst)
		out = binary.LittleEndian.AppendUint16(out, uint16(in.off))
		out = binary.LittleEndian.AppendUint32(out, uint32(in.imm))
	}
	return out
}
