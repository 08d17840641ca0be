// Package nearest finds the known word that an unknown one most likely stands
// for, so that an error can name it. It is the house's one measure of how far
// two words are apart.
package nearest

import (
	"slices"
	"strings"
)

// longest is how much of a word is looked at, in bytes.
const longest = 200

// Word is the known word closest to an unknown one; the first of equals, ""
// where none is known; capitals make no difference. One slip of the hand decides; else a shared beginning
// counts more than single letters.
func Word(unknown string, known []string) string {
	word, _ := find(unknown, known)
	return word
}

// Close is Word, where that is likely to be meant: an edit distance of at most
// a third of what was typed and one, or a word that begins with it, or holds it.
func Close(typed string, known []string) (word string, close bool) {
	word, d := find(typed, known)
	close = word != "" && (d <= 1+len(typed)/3 || len(typed) >= 2 && strings.HasPrefix(word, typed) || len(typed) >= 4 && strings.Contains(word, typed))
	if !close {
		word = ""
	}
	return word, close
}

func find(unknown string, known []string) (best string, distance int) {
	unknown = strings.ToLower(unknown[:min(len(unknown), longest)])
	least := 0
	for _, n := range known {
		lower := strings.ToLower(n)
		d := Distance(unknown, lower)
		rank := d - 2*shared(unknown, lower)
		if d <= 1 {
			rank = 2*d - 3*longest
			if d == 1 && sameLetters(unknown, lower) { // two neighbours swapped: trian is train rather than trial
				rank--
			}
		}
		if best == "" || rank < least {
			best, least, distance = n, rank, d
		}
	}
	return best, distance
}

// sameLetters reports whether one word is the other in another order.
func sameLetters(a, b string) bool {
	x, y := []byte(a), []byte(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
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
