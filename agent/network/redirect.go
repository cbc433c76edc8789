package network

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"runv/agent/cgroup"
)

// Programs of the container may want port 53 for themselves, on any address: so the
// resolver listens at another one, as Docker's does, and what is sent to its address at
// port 53 is led there by BPF programs of the cgroups, which rewrite the address
// in the call, and back in what it returns. No packet is touched.

// hooks are the calls, and for which of the two the program is: what is asked, or told.
// IPv4 addresses that are mapped to IPv6 have hooks of their own; sending them
// without a connection does not.
var hooks = [...]struct {
	attach uint32
	v6     bool
	back   bool
}{
	{unix.BPF_CGROUP_INET4_CONNECT, false, false},
	{unix.BPF_CGROUP_UDP4_SENDMSG, false, false},
	{unix.BPF_CGROUP_UDP4_RECVMSG, false, true},
	{unix.BPF_CGROUP_INET4_GETPEERNAME, false, true},
	{unix.BPF_CGROUP_INET6_CONNECT, true, false},
	{unix.BPF_CGROUP_UDP6_RECVMSG, true, true},
	{unix.BPF_CGROUP_INET6_GETPEERNAME, true, true},
}

// redirect leads what the processes of a network namespace send to address at port
// 53 to another port. They are those below the cgroup that is at path.
func redirect(path string, cookie uint64, address [4]byte, port uint16) error {
	for _, h := range hooks {
		from, to := uint16(dnsPort), port
		if h.back {
			from, to = to, from
		}
		prog := rewrite(h.v6, cookie, address, from, to)
		if err := cgroup.Attach(path, unix.BPF_PROG_TYPE_CGROUP_SOCK_ADDR, h.attach, prog); err != nil {
			return err
		}
	}
	return nil
}

// Where struct bpf_sock_addr (linux/bpf.h) has what a program reads, in bytes. All of
// it is in network byte order.
const (
	userIP4  = 4
	userIP6  = 8 // 4 words
	userPort = 24
)

// helperNetnsCookie is bpf_get_netns_cookie of linux/bpf.h.
const helperNetnsCookie = 122

// rewrite is a program that changes a port, of an address, in a network namespace.
func rewrite(v6 bool, cookie uint64, address [4]byte, from, to uint16) []byte {
	ip := binary.NativeEndian.Uint32(address[:])
	match := []word{{userIP4, ip}}
	if v6 {
		match = []word{{userIP6, 0}, {userIP6 + 4, 0}, {userIP6 + 8, binary.NativeEndian.Uint32([]byte{0, 0, 0xff, 0xff})}, {userIP6 + 12, ip}}
	}
	match = append(match, word{userPort, networkOrder(from)})

	const ctx, tmp, result = 6, 2, 0 // registers
	var p program
	p.add(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_X, ctx, 1, 0, 0)
	var skips []int // jumps to the end
	for _, w := range match {
		p.add(unix.BPF_LDX|unix.BPF_MEM|unix.BPF_W, tmp, ctx, w.offset, 0)
		skips = append(skips, len(p))
		p.add(unix.BPF_JMP32|unix.BPF_JNE|unix.BPF_K, tmp, 0, 0, w.value)
	}
	p.add(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_X, 1, ctx, 0, 0)
	p.add(unix.BPF_JMP|unix.BPF_CALL, 0, 0, 0, helperNetnsCookie)
	p.add(unix.BPF_LD|unix.BPF_IMM|unix.BPF_DW, tmp, 0, 0, uint32(cookie))
	p.add(0, 0, 0, 0, uint32(cookie>>32))
	skips = append(skips, len(p))
	p.add(unix.BPF_JMP|unix.BPF_JNE|unix.BPF_X, result, tmp, 0, 0)
	p.add(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_K, tmp, 0, 0, networkOrder(to))
	p.add(unix.BPF_STX|unix.BPF_MEM|unix.BPF_W, ctx, tmp, userPort, 0)
	for _, at := range skips {
		binary.NativeEndian.PutUint16(p[at+2:], uint16((len(p)-at)/insnBytes-1))
	}
	p.add(unix.BPF_ALU64|unix.BPF_MOV|unix.BPF_K, result, 0, 0, 1) // as it is now
	p.add(unix.BPF_JMP|unix.BPF_EXIT, 0, 0, 0, 0)
	return p
}

// word is one of 32 bits that has to be so.
type word struct {
	offset int16
	value  uint32
}

// insnBytes is the size of struct bpf_insn.
const insnBytes = 8

// program is an array of struct bpf_insn.
type program []byte

func (p *program) add(code uint8, dst, src uint8, offset int16, imm uint32) {
	*p = append(*p, code, dst|src<<4)
	*p = binary.NativeEndian.AppendUint16(*p, uint16(offset))
	*p = binary.NativeEndian.AppendUint32(*p, imm)
}

// networkOrder is a port as a word of the machine's.
func networkOrder(port uint16) uint32 {
	return uint32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port)))
}

// soNetnsCookie is SO_NETNS_COOKIE (asm-generic/socket.h, Linux 5.14).
const soNetnsCookie = 71

// cookieOf is the number by which BPF programs know a socket's network namespace.
func cookieOf(f *os.File) (cookie uint64, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	size := uint32(unsafe.Sizeof(cookie))
	var errno unix.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, soNetnsCookie,
			uintptr(unsafe.Pointer(&cookie)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("getsockopt", errno)
	}
	return cookie, err
}
