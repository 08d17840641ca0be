package cli

import (
	"fmt"

	"atelier/tuner/train"
)

// trainBar shows a training: on a terminal a bar that is redrawn and a line an
// epoch, elsewhere the lines alone.
type trainBar struct{ bar }

// Begin tells what is going to be trained.
func (b *trainBar) Begin(p *train.Plan) {
	b.begin(b.e.Now())
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

// Progress redraws the bar. Without a terminal it is a word now and then on what
// is prepared.
func (b *trainBar) Progress(p train.Progress) {
	text := p.Message
	if p.Epoch > 0 && b.e.Live {
		text = fmt.Sprintf("epoch %d/%d %s %3.0f%%  loss %.4f  acc %.3f  %.0f images/s%s", p.Epoch, p.Epochs, cells(p.Done), 100*p.Done, p.Loss, p.Acc, p.ImagesPerS, left(p.Left))
	}
	b.draw(b.e.Now(), text)
}

// Epoch writes a line that stays.
func (b *trainBar) Epoch(x train.Epoch) {
	get := func(name string) float64 { v, _ := x.Metrics.Get(name); return v }
	text := fmt.Sprintf("epoch %*d/%d  train_loss %.4f  train_acc %.3f  val_loss %.4f  val_acc %.3f  %.0f images/s", len(fmt.Sprint(x.Epochs)), x.Epoch, x.Epochs,
		get("train_loss"), get("train_acc"), get("val_loss"), get("val_acc"), get("images_per_s"))
	text += left(x.Left)
	if x.Best {
		text += " *"
	}
	b.say("%s", text)
}
