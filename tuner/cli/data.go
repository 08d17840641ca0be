package cli

import (
	"fmt"
	"strings"

	"atelier/common/dataset"
	"atelier/tuner/data/synth"

	ucli "github.com/urfave/cli/v2"
)

// dataCommands work without a cluster.
func (e *Env) dataCommands() *ucli.Command {
	return group("data", "scrape, clean up, split, draw, list and pack image folders",
		e.dataScrape(), e.dataCleanup(), e.dataSplit(), e.dataAll(),
		verb(&ucli.Command{Name: "synth", Usage: "draw house facades by architectural style: a data set from nothing", ArgsUsage: "FOLDER",
			Description: "Writes FOLDER/train, FOLDER/validation and FOLDER/test with one subfolder per style. The\n" +
				"same options draw the same images; an interrupted drawing is resumed.",
			Flags: []ucli.Flag{
				&ucli.StringSliceFlag{Name: "style", Usage: "draw `STYLE`: " + strings.Join(synth.Styles(), ", ") + "; may be given again"},
				&ucli.IntFlag{Name: "train", Value: 100, Usage: "`N` images of each style to train on"},
				&ucli.IntFlag{Name: "validation", Value: 30, Usage: "`N` to validate on"},
				&ucli.IntFlag{Name: "test", Value: 30, Usage: "`N` to test on"},
				&ucli.IntFlag{Name: "size", Value: 96, Usage: "side in `PIXELS`"},
				&ucli.Uint64Flag{Name: "seed", Value: 42, Usage: "`SEED` of the drawing"},
				&ucli.Float64Flag{Name: "difficulty", Value: 0.5, Usage: "`D` from 0 to 1: how much the images vary"},
			}, Action: e.synth}, 1, 1,
			"atelier data synth run/facades", "atelier data synth data/small --train 30 --validation 10 --test 0 --style gothic --style tudor"),
		verb(&ucli.Command{Name: "pack", Usage: "decode and resize an image folder once, into one file", ArgsUsage: "FOLDER",
			Description: "Trainers do this by themselves; packing ahead spares the first training the wait. Images\n" +
				"that cannot be decoded are listed and left out. The path goes to standard output.",
			Flags: []ucli.Flag{
				&ucli.IntFlag{Name: "size", Value: 64, Usage: "side of the packed squares in `PIXELS`"},
				&ucli.StringFlag{Name: "cache", Usage: "`FOLDER` that takes the file (default: the user's cache folder)"},
				&ucli.IntFlag{Name: "workers", Usage: "decode `N` images at a time; 0 = one per core"},
			}, Action: e.pack}, 1, 1,
			"atelier data pack data/facades/train --size 64"),
		e.dataInfo(),
	)
}

// imageProgress shows how many of a number of images are done, on a terminal.
func (e *Env) imageProgress() func(done, total int) {
	b := bar{e: e, quiet: !e.Live, every: redrawEvery}
	return func(done, total int) {
		if b.draw(e.Now(), fmt.Sprintf("%d/%d images", done, total)); done == total {
			b.clear()
		}
	}
}

// synth draws what is missing and prints the folders, one a line; the same options give the same
// bytes.
func (e *Env) synth(c *ucli.Context) error {
	difficulty := c.Float64("difficulty")
	o := synth.Options{Styles: c.StringSlice("style"), Train: c.Int("train"), Validation: c.Int("validation"), Test: c.Int("test"),
		Size: c.Int("size"), Seed: c.Uint64("seed"), Difficulty: &difficulty, Progress: e.imageProgress()}
	// To the room below all three at 0 mean its defaults; a person who types three zeros means
	// none.
	if o.Train == 0 && o.Validation == 0 && o.Test == 0 {
		return usage("data synth: --train, --validation and --test are all 0: nothing to draw")
	}
	s, err := synth.Draw(c.Context, e.path(c.Args().First()), o)
	if err != nil {
		return err
	}
	e.say("%s of %s, %s drawn now in %s", plural(s.Images, "image"), plural(len(s.Styles), "style"), thousands(s.Drawn), roundly(s.Elapsed))
	for _, folder := range []string{s.Train, s.Validation, s.Test} {
		if folder == "" {
			continue
		}
		if _, err := fmt.Fprintln(e.Out, folder); err != nil {
			return err
		}
	}
	return nil
}

// pack prints the path of the packed file, which trainers with the same options find by themselves.
func (e *Env) pack(c *ucli.Context) error {
	folder, err := dataset.ListHeldOut(e.path(c.Args().First()))
	if err != nil {
		return err
	}
	e.warn(folder.Notes())
	cache := c.String("cache")
	if cache != "" {
		cache = e.path(cache)
	}
	path, report, err := dataset.PackContext(c.Context, folder, dataset.PackOptions{Size: c.Int("size"), CacheDir: cache, Workers: c.Int("workers"),
		Progress: e.imageProgress()})
	if err != nil {
		return err
	}
	for _, s := range report.Skipped {
		e.say("skipped %s: %s", s.Path, s.Reason)
	}
	if report.Turned > 0 {
		e.say("turned %s as their EXIF orientation says (torchvision's ImageFolder would leave them lying)", plural(report.Turned, "image"))
	}
	how := "packed"
	if report.Cached {
		how = "packed earlier"
	}
	e.say("%s %s, %s skipped, %s", plural(report.Images, "image"), how, thousands(len(report.Skipped)), bytesOf(report.Bytes))
	_, err = fmt.Fprintln(e.Out, path)
	return err
}
