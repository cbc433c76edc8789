package cpulist

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func members(s *unix.CPUSet) []int {
	var out []int
	for i := range int(maxCPU) {
		if s != nil && s.IsSet(i) {
			out = append(out, i)
		}
	}
	return out
}

func TestParse(t *testing.T) {
	for list, want := range map[string][]int{
		"": nil, "0": {0}, "0-2": {0, 1, 2}, "1,3-4": {1, 3, 4}, " 5 , ,7,": {5, 7}, "3-3": {3}, "1023": {1023},
	} {
		got, err := Parse(list)
		if err != nil || !slices.Equal(members(got), want) {
			t.Errorf("%q: got %v, %v, want %v", list, members(got), err, want)
		}
	}
	for list, want := range map[string]string{
		"x": "invalid syntax", "-1": "invalid syntax", "3-1": "invalid range: 3-1", "1024": "values larger than 1023", "0-1024": "values larger than 1023",
		",": `no members found in set ","`, "1-2-3": "invalid syntax", "4294967296": "out of range", "0 - 1": "invalid syntax",
	} {
		if got, err := Parse(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v, want %q", list, members(got), err, want)
		}
	}
}

// FuzzParse: what is read has members, and no list makes it panic.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "0-3,5", "1-", "99999", " , "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		if got, err := Parse(list); err == nil && (got == nil) != (list == "") {
			t.Errorf("%q: got %v", list, got)
		}
	})
}
