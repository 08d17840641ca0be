// Package nearest finds the known word that an unknown one most likely stands
// for, so that an error can name it.
package nearest

import "strings"

// Word is the known word closest to an unknown one; the first of equals, ""
// where none is known. A shared beginning counts more than single letters.
func Word(unknown string, known []string) string {
	lower := strings.ToLower(unknown)
	best, least := "", 0
	for _, n := range known {
		d := Distance(lower, n) - 2*shared(lower, n)
		if best == "" || d < least {
			best, least = n, d
		}
	}
	return best
}

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// Distance is Levenshtein's on bytes, with two neighbours in the wrong order
// counted as one slip (Damerau).
func Distance(a, b string) int {
	var before []int // the row before last
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
