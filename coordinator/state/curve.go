package state

import (
	"math"
	"slices"
)

// layout is the order of metrics in the rows of a curve. Trials whose runs
// report the same metrics in the same order share one.
type layout struct {
	names   []string
	columns []int32 // index of each name in the sweep's metrics
}

// curve holds a trial's reports column by column. Rows are only ever appended,
// so a View's copy of the headers stays true while the arrays behind grow.
type curve struct {
	layout *layout
	epochs []int32 // strictly ascending
	times  []int64
	values []float64 // row-major, len(layout.names) a row; NaN where absent
	absent []uint32  // flat positions in values that were not reported, ascending
}

// Metric is one value of a report.
type Metric struct {
	Name  string
	Value float64 // NaN and infinities are allowed
}

// Report is one row of a curve: what a run measured at one epoch.
type Report struct {
	Epoch   int32
	TimeMS  int64
	Metrics []Metric // in the order the trial first reported them; valid until the callback returns
}

// lastEpoch is 0 before the first report.
func (c *curve) lastEpoch() int32 {
	if len(c.epochs) == 0 {
		return 0
	}
	return c.epochs[len(c.epochs)-1]
}

// row finds an epoch's row; epochs ascend.
func (c *curve) row(epoch int32) (int, bool) { return slices.BinarySearch(c.epochs, epoch) }

// width is the number of metrics in a row.
func (c *curve) width() int {
	if c.layout == nil {
		return 0
	}
	return len(c.layout.names)
}

// metric returns the value of a metric in row i; false if it was not reported.
func (c *curve) metric(i int, name string) (float64, bool) {
	if c.layout == nil {
		return 0, false
	}
	j := slices.Index(c.layout.names, name)
	if j < 0 {
		return 0, false
	}
	at := i*c.width() + j
	if _, gone := slices.BinarySearch(c.absent, uint32(at)); gone {
		return 0, false
	}
	return c.values[at], true
}

// widen changes the layout to one that begins with the present one. The arrays
// are made anew: Views keep the old ones.
func (c *curve) widen(to *layout) {
	old := c.width()
	values := make([]float64, 0, len(c.epochs)*len(to.names)+8*len(to.names))
	var absent []uint32
	for i := range c.epochs {
		for j := range to.names {
			at := uint32(i*len(to.names) + j)
			if j >= old {
				absent = append(absent, at)
				values = append(values, math.NaN())
				continue
			}
			if _, gone := slices.BinarySearch(c.absent, uint32(i*old+j)); gone {
				absent = append(absent, at)
			}
			values = append(values, c.values[i*old+j])
		}
	}
	c.layout, c.values, c.absent = to, values, absent
}

// compact gives back what append left spare; the trial has ended.
func (c *curve) compact() {
	c.epochs = exact(c.epochs)
	c.times = exact(c.times)
	c.values = exact(c.values)
}

// exact gives back room that a slice will not grow into.
func exact[T any](s []T) []T {
	if cap(s)-len(s) <= len(s)/8 {
		return s
	}
	return append(make([]T, 0, len(s)), s...)
}

// each calls fn with every row until it returns false; the row's metrics are valid until then.
func (c *curve) each(fn func(Report) bool) {
	w := c.width()
	row := make([]Metric, 0, w)
	absent := c.absent
	for i, epoch := range c.epochs {
		row = row[:0]
		for j := range w {
			at := i*w + j
			if len(absent) > 0 && absent[0] == uint32(at) {
				absent = absent[1:]
				continue
			}
			row = append(row, Metric{Name: c.layout.names[j], Value: c.values[at]})
		}
		if !fn(Report{Epoch: epoch, TimeMS: c.times[i], Metrics: row}) {
			return
		}
	}
}
