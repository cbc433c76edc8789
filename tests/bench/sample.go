package main

import (
	"context"
	"fmt"
	"slices"
)

// reading is one measured value.
type reading struct {
	name  string  // of what was measured, when a run measures more than one thing
	value float64 // in the unit of the measurement
}

// variant is one of the ways that are compared.
type variant struct {
	name string
	once func(ctx context.Context) ([]reading, error)
}

// series is what a variant has measured under one name.
type series struct {
	variant string
	name    string
	values  []float64
}

// interleave runs the variants in turns, A B A B, so that what else happens on
// the machine hits all of them; first warmup rounds that do not count, then n.
// The series come in the order of their first readings, variant by variant.
func (b *bench) interleave(ctx context.Context, what string, n int, variants ...variant) ([]series, error) {
	const warmup = 1
	var all []series
	for round := range warmup + n {
		if round == 0 {
			b.progress("%s: warming up", what)
		} else {
			b.progress("%s: %d of %d", what, round, n)
		}
		for _, v := range variants {
			readings, err := v.once(ctx)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", what, v.name, err)
			}
			if round < warmup {
				continue
			}
			for _, r := range readings {
				i := slices.IndexFunc(all, func(s series) bool { return s.variant == v.name && s.name == r.name })
				if i < 0 {
					i = len(all)
					all = append(all, series{variant: v.name, name: r.name})
				}
				all[i].values = append(all[i].values, r.value)
			}
		}
	}
	return all, nil
}

// find returns the series of a variant.
func find(all []series, variant, name string) (series, bool) {
	i := slices.IndexFunc(all, func(s series) bool { return s.variant == variant && s.name == name })
	if i < 0 {
		return series{}, false
	}
	return all[i], true
}

// median of the values; the mean of the two in the middle if they are even.
func (s series) median() float64 {
	sorted := slices.Sorted(slices.Values(s.values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
