package mem

import (
	"errors"
	"math"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	page := make([]byte, 4096)
	tests := []struct {
		name    string
		regions []Region
	}{
		{"empty region", []Region{{GPA: 0}}},
		{"overlap", []Region{{GPA: 0x1fff, Host: page}, {GPA: 0x1000, Host: page}}},
		{"same address", []Region{{GPA: 0x1000, Host: page}, {GPA: 0x1000, Host: page}}},
		{"wraps", []Region{{GPA: math.MaxUint64 - 10, Host: page}}},
		{"ends at the end of the address space", []Region{{GPA: math.MaxUint64 - 4095, Host: page}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(tt.regions...); err == nil {
				t.Error("New took it")
			}
		})
	}
}

func TestSlice(t *testing.T) {
	low, high := make([]byte, 4096), make([]byte, 8192)
	m, err := New(Region{GPA: 0x2000, Host: high}, Region{GPA: 0x1000, Host: low}, Region{GPA: 1 << 40, Host: low})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		gpa  GPA
		n    uint64
		want *byte // nil: ErrUnmapped
	}{
		{"first byte", 0x1000, 1, &low[0]},
		{"whole region", 0x1000, 4096, &low[0]},
		{"last byte", 0x3fff, 1, &high[8191]},
		{"below", 0xfff, 1, nil},
		{"behind", 0x4000, 1, nil},
		{"over two regions", 0x1fff, 2, nil},
		{"over the end", 0x3fff, 2, nil},
		{"length that wraps", 0x1001, math.MaxUint64, nil},
		{"address that wraps", math.MaxUint64, 2, nil},
		{"far region", 1<<40 + 8, 8, &low[8]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := m.Slice(tt.gpa, tt.n)
			if tt.want == nil {
				if !errors.Is(err, ErrUnmapped) || s != nil {
					t.Errorf("Slice = %d bytes, %v, want ErrUnmapped", len(s), err)
				}
				return
			}
			if err != nil || uint64(len(s)) != tt.n || cap(s) != len(s) || &s[0] != tt.want {
				t.Errorf("Slice = %d bytes (cap %d), %v", len(s), cap(s), err)
			}
		})
	}
	if s, err := m.Slice(0x999999, 0); s != nil || err != nil {
		t.Errorf("Slice of nothing = %v, %v", s, err)
	}
	if got := m.Regions(); len(got) != 3 || got[0].GPA != 0x1000 || got[2].GPA != 1<<40 {
		t.Errorf("Regions = %v, not sorted", got)
	}
}

// TestSet: a memory that grows has what it had, and ranges across what was its end.
func TestSet(t *testing.T) {
	host := make([]byte, 3*4096)
	m, err := New(Region{GPA: 0, Host: host[:4096]})
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.Slice(0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Set(Region{GPA: 0, Host: host[:8192]}, Region{GPA: 1 << 32, Host: host[8192:]}); err != nil {
		t.Fatal(err)
	}
	before[4095] = 7
	if b, err := m.Slice(4090, 100); err != nil || b[5] != 7 {
		t.Errorf("across the end of before: %v", err)
	}
	if _, err := m.Slice(1<<32, 4096); err != nil {
		t.Error(err)
	}
	if err := m.Set(Region{GPA: 0, Host: host}, Region{GPA: 4096, Host: host}); err == nil {
		t.Error("regions that overlap")
	}
	if got := len(m.Regions()); got != 2 {
		t.Errorf("%d regions after a refusal", got)
	}
}
