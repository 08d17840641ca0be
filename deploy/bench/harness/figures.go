package harness

import (
	"bytes"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Median of values; the mean of the middle two of an even number, NaN of none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// MedianOf is the median of a figure of many.
func MedianOf[T any](all []T, figure func(T) float64) float64 { return Median(Of(all, figure)) }

// Of is a figure of each.
func Of[T any](all []T, figure func(T) float64) (values []float64) {
	for _, x := range all {
		values = append(values, figure(x))
	}
	return values
}

// Quantile of values in any order: the smallest that a share q of them does not
// exceed, NaN of none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[min(max(int(math.Ceil(q*float64(len(s))))-1, 0), len(s)-1)]
}

// Ratio is the median of a/b round by round: what drifts from one round to the
// next concerns both.
func Ratio(a, b []float64) float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return Median(r)
}

// GeometricMean of positive values; NaN of none.
func GeometricMean(values []float64) float64 {
	var sum float64
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

// MeanDeviation returns the mean and the sample's standard deviation, which
// is NaN below two values.
func MeanDeviation(values []float64) (mean, deviation float64) {
	n := float64(len(values))
	mean = Sum(values) / n
	var squares float64
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	if n < 2 {
		return mean, math.NaN()
	}
	return mean, math.Sqrt(squares / (n - 1))
}

// Sum of values.
func Sum(values []float64) (total float64) {
	for _, v := range values {
		total += v
	}
	return total
}

// Table is one of Markdown.
type Table struct{ text strings.Builder }

// NewTable begins one with its columns.
func NewTable(columns ...string) *Table {
	t := &Table{}
	t.Cells(columns...)
	t.text.WriteString("|" + strings.Repeat("---|", len(columns)) + "\n")
	return t
}

// Cells adds a row.
func (t *Table) Cells(cells ...string) {
	t.text.WriteString("|")
	for _, c := range cells {
		t.text.WriteString(strings.TrimRight(" "+c, " ") + " |")
	}
	t.text.WriteString("\n")
}

// Row adds one whose format has " | " between the cells.
func (t *Table) Row(format string, args ...any) {
	t.Cells(strings.Split(fmt.Sprintf(format, args...), " | ")...)
}

func (t *Table) String() string { return t.text.String() }

// Used is what a program took from its start to its end.
type Used struct {
	Wall float64 `json:"seconds"`
	CPU  float64 `json:"cpu_s"`    // seconds of all cores together, its children's with it
	Peak float64 `json:"peak_mib"` // resident memory of the largest process
}

// Use runs a program and returns what it said on standard output, and what it
// took. An error ends with what the program said for people.
func Use(cmd *exec.Cmd) (out []byte, u Used, err error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, u, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, Tail(append(stdout.Bytes(), stderr.Bytes()...)))
	}
	s := cmd.ProcessState
	u = Used{Wall: time.Since(began).Seconds(), CPU: (s.UserTime() + s.SystemTime()).Seconds(), Peak: Peak(cmd)}
	return stdout.Bytes(), u, nil
}

// Peak is the largest resident memory of an ended program, or of the largest of
// its children if that is more, MiB.
func Peak(cmd *exec.Cmd) float64 {
	return float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) / 1024
}

// Tail is the end of what a program said for people.
func Tail(b []byte) []byte {
	const most = 2000
	return bytes.TrimSpace(b[max(0, len(b)-most):])
}
