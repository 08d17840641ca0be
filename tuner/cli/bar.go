package cli

import (
	"strings"
	"time"
)

// lineEvery is how often progress is written where no terminal redraws it.
const lineEvery = 10 * time.Second

// redrawEvery bounds how often a terminal's line is redrawn by what moves fast.
const redrawEvery = 100 * time.Millisecond

// bar is the line that tells how far some work is: on a terminal it is redrawn
// in its place, elsewhere written now and then. Its owner says what it holds.
type bar struct {
	e     *Env
	quiet bool
	every time.Duration // a terminal's line is redrawn this often at most; 0 = each time

	drawn bool // it stands on the terminal's line
	last  time.Time
	text  string // that was written last
}

// begin lets the first line wait as long as the others.
func (b *bar) begin(now time.Time) { b.last = now }

// draw shows a line as of now; an empty one leaves things as they are.
func (b *bar) draw(now time.Time, text string) {
	every := b.every
	if !b.e.Live {
		every = lineEvery
	}
	if b.quiet || text == "" || now.Sub(b.last) < every || !b.e.Live && text == b.text {
		return
	}
	b.last, b.text = now, text
	if !b.e.Live {
		b.e.say("%s", text)
		return
	}
	b.e.redraw(b.e.fit(text))
	b.drawn = true
}

// say writes a line that stays.
func (b *bar) say(format string, a ...any) {
	if !b.quiet {
		b.clear()
		b.e.say(format, a...)
	}
}

// prose writes a message that stays, folded to a terminal's width.
func (b *bar) prose(format string, a ...any) {
	if !b.quiet {
		b.clear()
		b.e.prose(format, a...)
	}
}

// clear takes the line away.
func (b *bar) clear() {
	if b.drawn {
		b.e.redraw("")
		b.drawn = false
	}
}

// cells is a share of 0..1 drawn with characters, for a terminal's line.
func cells(share float64) string { return cellsOf(share, 20) }

func cellsOf(share float64, n int) string {
	full := int(min(max(share, 0), 1) * float64(n))
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", n-full) + "]"
}

// left is a time that work takes still, to be put behind a line; 0 = not known.
func left(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return ", about " + roundly(d) + " left"
}

// pace is how fast something grows since it was first seen.
type pace struct {
	since time.Time
	from  int64
}

// at is what is gained a second, and the time up to total at that pace; both 0
// where nothing was gained yet.
func (p *pace) at(now time.Time, done, total int64) (perSecond float64, rest time.Duration) {
	if p.since.IsZero() || done < p.from {
		*p = pace{now, done}
	}
	if done <= p.from {
		return 0, 0
	}
	perSecond = float64(done-p.from) / max(now.Sub(p.since).Seconds(), 1e-3)
	return perSecond, time.Duration(float64(max(total-done, 0)) / perSecond * float64(time.Second))
}
