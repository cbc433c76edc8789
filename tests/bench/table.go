package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"
)

// ours is the name of the variant that the others are compared with.
const ours = "runv"

// row is a line of the table.
type row struct {
	measurement, what, unit string
	values                  series
	ratio                   float64 // our median over this one's; 0: none
	goal                    string  // what is asked for, and whether it is so
}

// table is what the benchmark has found.
type table struct{ rows []row }

// compare adds what was measured under a name. goal bounds the ratio of our
// median to that of a variant; 0 is no goal.
func (t *table) compare(measurement, unit string, all []series, name string, goals map[string]float64) {
	base, ok := find(all, ours, name)
	for _, s := range all {
		if s.name != name {
			continue
		}
		r := row{measurement: measurement, what: s.variant, unit: unit, values: s}
		if ok && s.variant != ours && s.median() > 0 {
			r.ratio = base.median() / s.median()
			if goal := goals[s.variant]; goal > 0 {
				r.goal = verdict(r.ratio, goal)
			}
		}
		t.rows = append(t.rows, r)
	}
}

// compareAll does so for every name under which we have measured something.
func (t *table) compareAll(prefix, unit string, all []series, goals map[string]float64) {
	for _, s := range all {
		if s.variant == ours {
			t.compare(prefix+s.name, unit, all, s.name, goals)
		}
	}
}

// value adds one value of ours, with a bound if goal is not 0.
func (t *table) value(measurement, what, unit string, v, goal float64) {
	r := row{measurement: measurement, what: what, unit: unit, values: series{values: []float64{v}}}
	if goal > 0 {
		r.goal = verdict(v, goal)
	}
	t.rows = append(t.rows, r)
}

func verdict(got, goal float64) string {
	word := "met"
	if got > goal {
		word = "MISSED"
	}
	return fmt.Sprintf("<=%v:%s", goal, word)
}

// print writes the table: a line of names, then the rows; the columns are
// separated by spaces, none holds one, and an empty one is "-".
func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "measurement\twhat\tunit\tmedian\tmin\tmax\tn\trunv/this\tgoal") //nolint:errcheck // Flush tells
	for _, r := range t.rows {
		ratio, goal := "-", "-"
		if r.ratio > 0 {
			ratio = strconv.FormatFloat(r.ratio, 'f', 2, 64)
		}
		if r.goal != "" {
			goal = r.goal
		}
		v := r.values.values
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.measurement, r.what, r.unit, //nolint:errcheck // Flush tells
			number(r.values.median()), number(slices.Min(v)), number(slices.Max(v)), len(v), ratio, goal)
	}
	return tw.Flush()
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
