package main

import "testing"

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{
		1: {1}, 2: {3, 1, 2}, 2.5: {4, 1, 2, 3}, 5: {9, 5, 1, 5, 5},
	} {
		if got := median(values); got != want {
			t.Errorf("median of %v is %v, want %v", values, got, want)
		}
	}
}
