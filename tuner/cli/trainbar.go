package cli

import (
	"fmt"
	"strings"
	"time"

	"atelier/tuner/train"
)

// trainBar shows a training: on a terminal a bar that is redrawn and a line an
// epoch, elsewhere the lines alone.
type trainBar struct {
	e       *Env
	quiet   bool
	drawn   bool
	prepare time.Time // of the last word on preparing, without a terminal
}

func (b *trainBar) say(format string, a ...any) {
	if b.quiet {
		return
	}
	b.clear()
	b.e.say(format, a...)
}

// Begin tells what is going to be trained.
func (b *trainBar) Begin(p *train.Plan) {
	b.prepare = b.e.Now()
	for _, n := range p.Notes {
		b.say("%s", n)
	}
	s := p.Settings
	images := ""
	if f := p.Data[0].Folder; f != nil {
		images = fmt.Sprintf(" on %d images of %d classes", len(f.Files), len(f.Classes))
	}
	b.say("%s%s: %d epochs, batch size %d, lr %g, %s, %d px, seed %d", s.Model, images, s.Epochs, s.BatchSize, s.LR, s.Optimizer, s.ImageSize, p.Seed)
	b.say("results in %s", b.e.relative(p.Folder))
}

// Progress redraws the bar.
func (b *trainBar) Progress(p train.Progress) {
	if b.quiet {
		return
	}
	if !b.e.Live {
		if now := b.e.Now(); p.Message != "" && now.Sub(b.prepare) >= lineEvery {
			b.prepare = now
			b.e.say("%s", p.Message)
		}
		return
	}
	text := p.Message
	if p.Epoch > 0 {
		const cells = 20
		full := int(p.Done * cells)
		text = fmt.Sprintf("epoch %d/%d [%s%s] %3.0f%%  loss %.4f  acc %.3f  %.0f images/s", p.Epoch, p.Epochs,
			strings.Repeat("#", full), strings.Repeat("-", cells-full), 100*p.Done, p.Loss, p.Acc, p.ImagesPerS)
		if p.Left > 0 {
			text += ", about " + roundly(p.Left) + " left"
		}
	}
	if w := b.e.Width() - 1; len(text) > w {
		text = text[:max(w, 0)]
	}
	b.e.redraw(text)
	b.drawn = true
}

// Epoch writes a line that stays.
func (b *trainBar) Epoch(x train.Epoch) {
	get := func(name string) float64 { v, _ := x.Metrics.Get(name); return v }
	text := fmt.Sprintf("epoch %*d/%d  train_loss %.4f  train_acc %.3f  val_loss %.4f  val_acc %.3f  %.0f images/s", len(fmt.Sprint(x.Epochs)), x.Epoch, x.Epochs,
		get("train_loss"), get("train_acc"), get("val_loss"), get("val_acc"), get("images_per_s"))
	if x.Left > 0 {
		text += ", about " + roundly(x.Left) + " left"
	}
	if x.Best {
		text += " *"
	}
	b.say("%s", text)
}

func (b *trainBar) clear() {
	if b.drawn {
		b.e.redraw("")
		b.drawn = false
	}
}
