package acpi

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"runv/libvm/mem"
)

const (
	start = 0xe0000
	room  = 64 << 10
)

func write(t *testing.T, c Config) *mem.Memory {
	t.Helper()
	m, err := mem.New(mem.Region{GPA: 0, Host: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	at, err := Write(m, start, room, c)
	if err != nil || at != start {
		t.Fatalf("Write: %#x, %v", at, err)
	}
	return m
}

// read returns the table at gpa after checking its header.
func read(t *testing.T, m *mem.Memory, gpa uint64, signature string) []byte {
	t.Helper()
	h, err := m.Slice(mem.GPA(gpa), headerBytes)
	if err != nil {
		t.Fatalf("%s: %v", signature, err)
	}
	b, err := m.Slice(mem.GPA(gpa), uint64(binary.LittleEndian.Uint32(h[4:])))
	if err != nil {
		t.Fatalf("%s: %v", signature, err)
	}
	if string(b[:4]) != signature || checksum(b) != 0 {
		t.Fatalf("table at %#x: signature %q, sum %d, want %q and 0", gpa, b[:4], checksum(b), signature)
	}
	if gpa < start || gpa+uint64(len(b)) > start+room {
		t.Fatalf("%s at %#x is outside of its room", signature, gpa)
	}
	return b
}

func full(cpus, devices int) Config {
	c := Config{CPUs: cpus, Serial: 0x3f8, SerialGSI: 4, SleepControl: 0x600, SleepStatus: 0x601, Reset: 0x602, GenerationID: 0xdf000}
	for i := range devices {
		c.Devices = append(c.Devices, MMIODevice{Base: mem.GPA(0xd0000000 + i*0x1000), Size: 0x1000, GSI: uint32(5 + i)})
	}
	return c
}

func TestTables(t *testing.T) {
	for _, c := range []Config{full(1, 0), full(4, 3), full(254, 100)} {
		m := write(t, c)
		le := binary.LittleEndian
		root, _ := m.Slice(start, 36)
		if string(root[:8]) != "RSD PTR " || checksum(root[:20]) != 0 || checksum(root) != 0 {
			t.Fatalf("root pointer: % x", root)
		}
		xsdt := read(t, m, le.Uint64(root[24:]), "XSDT")
		fadt := read(t, m, le.Uint64(xsdt[36:]), "FACP")
		madt := read(t, m, le.Uint64(xsdt[44:]), "APIC")
		dsdt := read(t, m, le.Uint64(fadt[140:]), "DSDT")
		if len(fadt) != fadtBytes || le.Uint32(fadt[112:])&fadtHWReduced == 0 || le.Uint64(fadt[248:]) != 0x600 || le.Uint64(fadt[120:]) != 0x602 {
			t.Errorf("FADT: % x", fadt)
		}
		apics := 0
		for b := madt[44:]; len(b) > 0; b = b[b[1]:] {
			if b[0] == 0 {
				apics++
			}
		}
		if apics != c.CPUs {
			t.Errorf("MADT: got %d local APICs, want %d", apics, c.CPUs)
		}
		if got := bytes.Count(dsdt, []byte("LNRO0005")); got != len(c.Devices) {
			t.Errorf("DSDT: got %d devices, want %d", got, len(c.Devices))
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	m, err := mem.New(mem.Region{GPA: 0, Host: make([]byte, 1<<20)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		size uint64
		c    Config
	}{
		{"no processors", room, Config{}},
		{"too many", room, Config{CPUs: 255}},
		{"no room", 300, full(1, 1)},
		{"outside of memory", 1 << 20, full(1, 1)},
	} {
		if _, err := Write(m, start, tt.size, tt.c); err == nil {
			t.Errorf("%s: Write took it", tt.name)
		}
	}
}

func TestPackageLength(t *testing.T) {
	for _, tt := range []struct {
		body int
		want []byte
	}{
		{0, []byte{1}},
		{62, []byte{63}},
		{63, []byte{0x41, 0x04}},
		{4093, []byte{0x4f, 0xff}},
		{4094, []byte{0x81, 0x00, 0x01}},
	} {
		if got := withLength(make([]byte, tt.body)); !bytes.Equal(got[:len(got)-tt.body], tt.want) {
			t.Errorf("%d bytes: got % x, want % x", tt.body, got[:len(got)-tt.body], tt.want)
		}
	}
}

// TestDisassemble has ACPICA's own compiler read the DSDT.
func TestDisassemble(t *testing.T) {
	iasl, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("no iasl (try: apt-get install acpica-tools)")
	}
	dsdt := filepath.Join(t.TempDir(), "dsdt.aml")
	if err := os.WriteFile(dsdt, table("DSDT", 2, full(1, 2).definitions()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(iasl, "-d", dsdt).CombinedOutput(); err != nil {
		t.Fatalf("iasl: %v: %s", err, out)
	}
	dsl, err := os.ReadFile(strings.TrimSuffix(dsdt, ".aml") + ".dsl")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`EisaId ("PNP0501")`, `"LNRO0005"`, "Memory32Fixed (ReadWrite,", "0xD0001000", "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive", "IO (Decode16,", "VM_Gen_Counter", "Name (_S5, Package"} {
		if !strings.Contains(string(dsl), want) {
			t.Errorf("the disassembly lacks %q:\n%s", want, dsl)
		}
	}
}
