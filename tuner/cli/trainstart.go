package cli

import (
	"fmt"
	"runtime"
	"time"

	"atelier/common/dataset"
	"atelier/common/nvml"
	"atelier/common/setting"
	"atelier/tuner/train"
	"atelier/tuner/weights"

	ucli "github.com/urfave/cli/v2"
)

// Sizes that are offered: what published weights were trained at, and the number
// of pixels that make one cell of a heat map in their architectures.
const (
	publishedSize = 224
	cellPixels    = 32
	fewestCells   = 4 // a side: below, a heat map is too coarse to read
	keyImageSize  = "image_size"
)

// start is a way to begin a training.
type start struct {
	weights string // name of published ones; "" = from scratch
	size    int
	about   string
}

// start asks what an ImageNet architecture starts from and how large the images
// are, where neither is given: with the time that each takes, and offering
// published weights only where they can be had.
func (q *questions) start(c *ucli.Context, conf configuration) error {
	e, model := q.e, conf.Get(train.KeyModel).Text()
	if conf.Get(train.KeyModel).Origin != setting.Prompt {
		return nil // whoever gives the model otherwise gives the rest, too
	}
	size, from := conf.Get(keyImageSize), conf.Get(train.KeyWeights)
	if _, err := weights.Find(model); err != nil || from.Origin != setting.Default || e.distant(c) {
		return nil
	}
	given := int(number(size.Data))
	var offers []start
	sizes := []int{given}
	if size.Origin == setting.Default {
		sizes = []int{publishedSize, given}
	}
	file, cached, there := e.published(c.Context, model)
	if there {
		how := "in the cache"
		if !cached {
			how = fmt.Sprintf("download of %s", bytesOf(4*file.Parameters))
		}
		offers = append(offers, start{file.Name, sizes[0], how})
	}
	for _, s := range sizes {
		offers = append(offers, start{"", s, ""})
	}
	if len(offers) < 2 {
		return nil
	}
	chosen := len(offers)
	if there {
		chosen = 1
	}
	e.say("Start of %s:", model)
	rate := e.rate(c, conf, model, given)
	for i, o := range offers {
		text := "from scratch"
		if o.weights != "" {
			text = "published ImageNet weights"
		}
		text = fmt.Sprintf("%-27s %3d px", text, o.size)
		if rate != nil {
			text += "  " + estimate(rate(o.size))
		}
		if o.about != "" {
			text += ", " + o.about
		}
		e.say("  %2d  %s", i+1, text)
	}
	if rate != nil {
		e.say("Times are estimates for %s, by a few steps timed here.", counted(int(number(conf.Get("epochs").Data)), "epoch"))
	}
	if !there {
		e.say("Published weights: not in the cache, and their server does not answer.")
	}
	if least := fewestCells * cellPixels; given < least && size.Origin == setting.Default {
		e.say("Below %d px heat maps (Grad-CAM) are too coarse to read.", least)
	}
	for {
		answer, err := q.ask(c.Context, fmt.Sprintf("Start, by number [%d]: ", chosen))
		if err != nil {
			return err
		}
		n := int64(chosen)
		if answer != "" {
			if n, err = setting.Whole(answer); err != nil || n < 1 || n > int64(len(offers)) {
				e.say("There is no %s here: give 1 to %d.", answer, len(offers))
				continue
			}
		}
		o := offers[n-1]
		if o.weights != "" {
			if err := conf.Set(train.KeyWeights, o.weights, setting.Prompt, "prompt"); err != nil {
				return err
			}
		}
		if o.size != given {
			return conf.Set(keyImageSize, int64(o.size), setting.Prompt, "prompt")
		}
		return nil
	}
}

// estimate is a time that is known roughly.
func estimate(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "under 1 min"
	case d < 100*time.Minute:
		return fmt.Sprintf("about %.0f min", d.Minutes())
	}
	return fmt.Sprintf("about %.1f h", d.Hours())
}

// number is a setting's value as a number.
func number(v any) float64 {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

// rate times the architecture on this machine and returns about how long the
// training takes by image size; nil where that is not known, as in a cluster.
func (e *Env) rate(c *ucli.Context, conf configuration, model string, size int) func(size int) time.Duration {
	if c.IsSet("addr") && !c.Bool("local") {
		return nil
	}
	trainer, err := train.FindTrainer(e.folder(c, "trainer-bin"))
	if err != nil {
		return nil // said where the training is to begin
	}
	images := 0.0
	for part, cost := range map[string]float64{"data.train": 1, "data.validation": 1. / 3} { // forward only
		f, err := dataset.Survey(e.path(conf.Get(part).Text()))
		if err != nil {
			return nil
		}
		images += cost * float64(len(f.Files))
	}
	if e.Live {
		e.redraw("timing " + model + " on this machine")
		defer e.redraw("")
	}
	device := conf.Get("device").Text()
	if device == "auto" {
		device = autoDevice()
	}
	perSecond, err := train.Rate(c.Context, trainer, model, device, size, runtime.NumCPU())
	if err != nil {
		return nil
	}
	epochs := number(conf.Get("epochs").Data)
	return func(s int) time.Duration {
		// Convolutions cost by the pixel.
		return time.Duration(epochs * images / perSecond * float64(s*s) / float64(size*size) * float64(time.Second))
	}
}

// autoDevice is what a training takes here where nobody chooses.
func autoDevice() string {
	if gpus, err := nvml.List(""); err == nil && len(gpus) > 0 {
		return "cuda:0"
	}
	return "cpu"
}
