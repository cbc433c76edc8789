package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"none", nil, 0},
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 3, 100}, 3.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := (series{values: tt.values}).median(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInterleave(t *testing.T) {
	b := &bench{stderr: io.Discard}
	var order string
	counter := func(name string) variant {
		calls := 0.0
		return variant{name, func(context.Context) ([]reading, error) {
			order += name
			calls++
			return []reading{{"x", calls}, {"y", -calls}}, nil
		}}
	}
	all, err := b.interleave(t.Context(), "test", 3, counter("a"), counter("b"))
	if err != nil {
		t.Fatal(err)
	}
	if order != "abababab" {
		t.Errorf("order %q", order)
	}
	got, ok := find(all, "b", "y")
	if want := []float64{-2, -3, -4}; !ok || !slices.Equal(got.values, want) {
		t.Errorf("got %v, want %v: the first round is for warming up", got.values, want)
	}
	broken := variant{"broken", func(context.Context) ([]reading, error) { return nil, io.ErrUnexpectedEOF }}
	if _, err := b.interleave(t.Context(), "test", 1, broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the variant's error", err)
	}
}
