package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"runv/libvm/mem"
)

const testRAM = 32 << 20 // bytes

func memory(t testing.TB, size int) *mem.Memory {
	t.Helper()
	m, err := mem.New(mem.Region{GPA: 0, Host: make([]byte, size)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func file(b []byte) File { return File{ReaderAt: bytes.NewReader(b), Size: int64(len(b))} }

// vmlinux makes an ELF kernel of the given segments; each one's bytes in the
// file are its Filesz times its index plus one.
func vmlinux(entry uint64, progs ...elf.Prog64) []byte {
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: entry,
		Phoff: ehdrSize, Ehsize: ehdrSize, Phentsize: phdrSize, Phnum: uint16(len(progs))}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	off := uint64(ehdrSize + phdrSize*len(progs))
	var data []byte
	for i := range progs {
		p := &progs[i]
		if p.Off == 0 {
			p.Off = off + uint64(len(data))
			data = append(data, bytes.Repeat([]byte{byte(i + 1)}, int(p.Filesz))...)
		}
	}
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, h)     //nolint:errcheck // a buffer
	binary.Write(&b, binary.LittleEndian, progs) //nolint:errcheck // a buffer
	b.Write(data)
	return b.Bytes()
}

func load(paddr, filesz, memsz uint64) elf.Prog64 {
	return elf.Prog64{Type: uint32(elf.PT_LOAD), Paddr: paddr, Filesz: filesz, Memsz: memsz}
}

func TestLoadELF(t *testing.T) {
	m := memory(t, testRAM)
	initrd := bytes.Repeat([]byte("i"), 5000)
	k := vmlinux(0x1000010, load(0x1000000, 0x3000, 0x5000), load(0x1800000, 0x10, 0x10))
	s, err := Load(m, file(k), Params{Cmdline: "console=ttyS0", Initrd: file(initrd), RSDP: TablesStart})
	if err != nil {
		t.Fatal(err)
	}
	if s.RIP != 0x1000010 || s.RSI != paramsStart || s.CR3 != pml4Start {
		t.Errorf("state: got %+v", s)
	}
	at := func(gpa mem.GPA, n uint64) []byte {
		b, err := m.Slice(gpa, n)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if got := at(0x1000000, 0x3001); got[0] != 1 || got[0x2fff] != 1 || got[0x3000] != 0 {
		t.Error("the first segment is not in its place")
	}
	if got := at(0x1800000, 17); got[0] != 2 || got[15] != 2 || got[16] != 0 {
		t.Error("the second segment is not in its place")
	}
	if got := string(at(cmdStart, 14)); got != "console=ttyS0\x00" {
		t.Errorf("command line: got %q", got)
	}
	if s.InitrdStart%pageSize != 0 || !bytes.Equal(at(s.InitrdStart, 5000), initrd) {
		t.Errorf("initramfs at %#x: not there", s.InitrdStart)
	}
	p := at(paramsStart, paramsBytes)
	le := binary.LittleEndian
	for _, f := range []struct {
		name      string
		got, want uint64
	}{
		{"boot_flag", uint64(le.Uint16(p[0x1fe:])), 0xaa55},
		{"header", uint64(le.Uint32(p[0x202:])), 0x53726448},
		{"ramdisk_image", uint64(le.Uint32(p[0x218:])), uint64(s.InitrdStart)},
		{"ramdisk_size", uint64(le.Uint32(p[0x21c:])), 5000},
		{"cmd_line_ptr", uint64(le.Uint32(p[0x228:])), uint64(cmdStart)},
		{"acpi_rsdp_addr", le.Uint64(p[0x70:]), uint64(TablesStart)},
		{"e820_entries", uint64(p[0x1e8]), 4},
		{"last e820 entry", le.Uint64(p[0x2d0+3*20:]), 1 << 20},
		{"its size", le.Uint64(p[0x2d0+3*20+8:]), testRAM - 1<<20},
	} {
		if f.got != f.want {
			t.Errorf("%s: got %#x, want %#x", f.name, f.got, f.want)
		}
	}
}

func TestLoadELFRefuses(t *testing.T) {
	const base = 0x1000000
	tests := []struct {
		name   string
		kernel []byte
		want   string
	}{
		{"entry outside", vmlinux(0x900000, load(base, 16, 16)), "entry point"},
		{"below 1 MiB", vmlinux(0x7000, load(0x7000, 16, 16)), "not enough memory"},
		{"beyond memory", vmlinux(base, load(base, 16, testRAM)), "not enough memory"},
		{"size that wraps", vmlinux(base, load(base, 16, 1<<64-1)), "not enough memory"},
		{"address that wraps", vmlinux(base, load(1<<64-16, 16, 32)), "not enough memory"},
		{"overlap", vmlinux(base, load(base, 16, 0x2000), load(base+0x1fff, 16, 16)), "overlaps"},
		{"beyond the file", vmlinux(base, elf.Prog64{Type: 1, Paddr: base, Off: 0x100000, Filesz: 16, Memsz: 16}), "beyond the end"},
		{"more in the file than in memory", vmlinux(base, load(base, 17, 16)), "in memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(memory(t, testRAM), file(tt.kernel), Params{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestLoadMapsWholePages has everything but the last bytes of a segment mapped.
func TestLoadMapsWholePages(t *testing.T) {
	k := vmlinux(0x1000000, elf.Prog64{Type: 1, Paddr: 0x1000000, Off: 0x1000, Filesz: 0x2010, Memsz: 0x2010},
		elf.Prog64{Type: 1, Paddr: 0x1100000, Off: 0x1800, Filesz: 0x1000, Memsz: 0x1000})
	k = append(k, make([]byte, 0x4000)...)
	for i := 0x1000; i < len(k); i++ {
		k[i] = byte(i >> 4)
	}
	f := file(k)
	mapped := 0
	f.Map = func(off int64, dst []byte) error {
		mapped += copy(dst, k[off:])
		return nil
	}
	m := memory(t, testRAM)
	if _, err := Load(m, f, Params{}); err != nil {
		t.Fatal(err)
	}
	first, _ := m.Slice(0x1000000, 0x2010)
	second, _ := m.Slice(0x1100000, 0x1000)
	if !bytes.Equal(first, k[0x1000:0x3010]) || !bytes.Equal(second, k[0x1800:0x2800]) {
		t.Error("memory is not what the file says")
	}
	if mapped != 0x2000 {
		t.Errorf("mapped %#x bytes, want 0x2000: the second segment is misaligned in the file", mapped)
	}
}

func TestLoadRefusesWhatDoesNotFit(t *testing.T) {
	k := vmlinux(0x1000000, load(0x1000000, 16, 0xf00000))
	_, err := Load(memory(t, testRAM), file(k), Params{Initrd: file(make([]byte, 2<<20))})
	if !errors.Is(err, ErrTooSmall) {
		t.Errorf("initramfs over the kernel: got %v, want ErrTooSmall", err)
	}
	if _, err = Load(memory(t, testRAM), file(k), Params{Cmdline: strings.Repeat("x", 2048)}); err == nil {
		t.Error("took a command line that the kernel would cut off")
	}
	if _, err = Load(memory(t, 1<<20), file(k), Params{}); !errors.Is(err, ErrTooSmall) {
		t.Errorf("1 MiB of memory: got %v, want ErrTooSmall", err)
	}
	short := File{ReaderAt: bytes.NewReader(make([]byte, 100)), Size: 200}
	if _, err = Load(memory(t, testRAM), file(k), Params{Initrd: short}); err == nil {
		t.Error("took an initramfs that is shorter than said")
	}
}

// bzImage makes a kernel with 4 setup sectors and code of the given size.
func bzImage(code int, change func(head []byte)) []byte {
	b := make([]byte, 5*sectorSize+code)
	le := binary.LittleEndian
	b[offSetupSects] = 4
	le.PutUint16(b[offBootFlag:], bootFlag)
	b[0x200], b[0x201] = 0xeb, 0x66 // up to 0x268
	copy(b[offHdrS:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	b[offLoadflags] = loadedHigh
	le.PutUint32(b[offInitrdAddrMax:], 0x7fffffff)
	b[offRelocatable] = 1
	le.PutUint16(b[offXloadflags:], 1)
	le.PutUint32(b[offCmdlineSize:], 2047)
	le.PutUint64(b[offPrefAddress:], 0x1000000)
	le.PutUint32(b[offInitSize:], 0x800000)
	for i := range code {
		b[5*sectorSize+i] = 0x90
	}
	if change != nil {
		change(b)
	}
	return b
}

func TestLoadBzImage(t *testing.T) {
	m := memory(t, testRAM)
	s, err := Load(m, file(bzImage(0x4000, nil)), Params{Cmdline: "a", Initrd: file(make([]byte, 100))})
	if err != nil {
		t.Fatal(err)
	}
	if s.RIP != 0x1000200 {
		t.Errorf("entry: got %#x, want 0x1000200", s.RIP)
	}
	if s.InitrdStart < 0x1800000 {
		t.Errorf("initramfs at %#x is where the kernel unpacks itself", s.InitrdStart)
	}
	code, _ := m.Slice(0x1000000, 0x4001)
	if code[0] != 0x90 || code[0x3fff] != 0x90 || code[0x4000] != 0 {
		t.Error("the code is not in its place")
	}
	p, _ := m.Slice(paramsStart, paramsBytes)
	if string(p[0x202:0x206]) != "HdrS" || p[offTypeOfLoader] != 0xff || binary.LittleEndian.Uint64(p[offPrefAddress:]) != 0x1000000 {
		t.Error("the header is not in boot_params")
	}
}

func TestLoadBzImageRefuses(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name string
		b    []byte
	}{
		{"address beyond memory", bzImage(0x4000, func(h []byte) { le.PutUint64(h[offPrefAddress:], 1<<40) })},
		{"address in low memory", bzImage(0x4000, func(h []byte) { le.PutUint64(h[offPrefAddress:], 0x7000) })},
		{"needs too much", bzImage(0x4000, func(h []byte) { le.PutUint32(h[offInitSize:], 1<<31) })},
		{"no code", bzImage(0x100, nil)},
		{"setup beyond the file", bzImage(0x4000, func(h []byte) { h[offSetupSects] = 255 })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Load(memory(t, testRAM), file(tt.b), Params{}); err == nil {
				t.Error("Load took it")
			}
		})
	}
}

func TestMPTable(t *testing.T) {
	for _, cpus := range []int{1, 4, 64, 254} {
		m := memory(t, 2<<20)
		if err := WriteMPTable(m, cpus); err != nil {
			t.Fatal(err)
		}
		f, _ := m.Slice(MPTableStart, mpFloatBytes)
		if string(f[:4]) != "_MP_" || Checksum(f) != 0 {
			t.Errorf("%d cpus: floating pointer % x", cpus, f)
		}
		head, _ := m.Slice(MPTableStart+mpFloatBytes, mpHeaderBytes)
		n := binary.LittleEndian.Uint16(head[4:])
		whole, err := m.Slice(MPTableStart+mpFloatBytes, uint64(n))
		if err != nil || Checksum(whole) != 0 {
			t.Fatalf("%d cpus: table of %d bytes: %v, checksum %d", cpus, n, err, Checksum(whole))
		}
		entries := 0
		for b := whole[mpHeaderBytes:]; len(b) > 0; entries++ {
			if b[0] == mpProcessor {
				b = b[20:]
			} else {
				b = b[8:]
			}
		}
		if want := int(binary.LittleEndian.Uint16(head[34:])); entries != want || entries != cpus+2+ioapicPins+2 {
			t.Errorf("%d cpus: %d entries, the header says %d", cpus, entries, want)
		}
	}
	if err := WriteMPTable(memory(t, 2<<20), 255); err == nil {
		t.Error("took 255 processors, and their ids do not fit")
	}
}

func fuzzLoad(f *testing.F, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	m := memory(f, testRAM)
	initrd := file(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Load(m, file(b), Params{Cmdline: "quiet", Initrd: initrd})
		if err != nil {
			return
		}
		if s.RIP < himem || s.RIP >= testRAM || s.InitrdStart < himem || s.InitrdStart > testRAM-4096 {
			t.Errorf("accepted, with state %+v", s)
		}
	})
}

func FuzzLoadELF(f *testing.F) {
	fuzzLoad(f, vmlinux(0x1000000, load(0x1000000, 64, 128)),
		vmlinux(0x1000000, load(0x1000000, 64, 128), load(0x1100000, 0, 128)))
}

func FuzzLoadBzImage(f *testing.F) {
	fuzzLoad(f, bzImage(0x400, nil), bzImage(0x400, func(h []byte) { h[offRelocatable] = 0 }))
}
