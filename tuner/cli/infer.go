package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"atelier/common/client"
	"atelier/common/config"
	"atelier/common/inference"
	"atelier/tuner/infer"
	"atelier/tuner/train"

	ucli "github.com/urfave/cli/v2"
)

// inferFlags set one key of the configuration each.
var inferFlags = []struct{ flag, key, usage string }{
	{"mode", "mode", "`MODE`: " + strings.Join(inference.Modes(), ", ")},
	{"checkpoint", "model.checkpoint", "model `FILE`, such as best_model.pth"},
	{"image", "paths.image_path", "`FILE` for mode explain_single"},
	{"image-dir", "paths.image_dir", "`DIR` of images; with one folder a class their classes are known"},
	{"output-dir", "paths.output_dir", "`DIR` for the results (default: results/ beside the checkpoint)"},
	{"true-class", "explain_single_mode.true_class", "`CLASS` of the image of explain_single"},
	{"limit", "processing.limit", "look at the first `N` images only"},
	{"batch-size", "processing.batch_size", "`N` images at a time"},
	{"device", infer.KeyDevice, "`DEVICE`: auto, cpu, cuda:0"},
}

func (e *Env) inferCommand() *ucli.Command {
	var flags []ucli.Flag
	for _, f := range inferFlags {
		flags = append(flags, &ucli.StringFlag{Name: f.flag, Usage: f.usage})
	}
	flags = append(flags,
		&ucli.StringFlag{Name: "config", Usage: "configuration `FILE` (default: " + infer.ConfigFile + " if it is there)"},
		&ucli.StringSliceFlag{Name: "set", Usage: "`KEY=VALUE`: any setting of the configuration file (may be given again)"},
		&ucli.StringFlag{Name: "trainer-bin", EnvVars: []string{"ATELIER_TRAINER_BIN"}, Usage: "`FILE` of atelier-trainer (default: beside this program, then the PATH)"},
		&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no progress; print the output folder and nothing else"})
	return verb(&ucli.Command{Name: "infer", Usage: "evaluate a model, see where it looks, find what to distrust",
		Description: "evaluate                   figures and charts of a test folder\n" +
			"explain_single             Grad-CAM of one image, and by class\n" +
			"explain_batch              Grad-CAM of every image of a folder\n" +
			"explain_misclassifications Grad-CAM of what evaluate got wrong\n" +
			"inference                  predictions of a folder, with what outputs asks for\n" +
			"production                 predictions, quality checks, suspicious ones apart, a report\n\n" +
			"Architecture, classes and normalisation come from the checkpoint. A value is taken from its\n" +
			"flag, else from the environment (ATELIER_INFER_MODE=production), else from the configuration\n" +
			"file. The folder of the results goes to standard output.",
		Flags: flags, Action: e.infer}, 0, 0,
		"atelier infer --checkpoint checkpoints/resnet18_ep30_bs32_lr0.001/best_model.pth --image-dir images/test",
		"atelier infer --mode explain_single --checkpoint best_model.pth --image house.jpg",
		"atelier infer --mode production --config conf/inference.yaml --output-dir results")
}

func (e *Env) infer(c *ucli.Context) error {
	conf, err := e.inferConfig(c)
	if err != nil {
		if train.FromFlags(err) {
			return usage("infer: %s", err)
		}
		return err
	}
	if conf.String("model.checkpoint") == "" {
		return usage("infer: name a model with --checkpoint, or model.checkpoint in %s", infer.ConfigFile)
	}
	trainer, err := train.FindTrainer(c.String("trainer-bin"))
	if err != nil {
		return err
	}
	bar := &inferBar{e: e, quiet: c.Bool("quiet"), began: e.Now()}
	out, err := infer.Local(c.Context, conf, infer.Options{Trainer: trainer, Dir: e.Dir, Log: io.Discard, Progress: bar.show,
		Warn: func(text string) { bar.clear(); e.say("warning: %s", text) }})
	bar.clear()
	var f *train.Failure
	switch {
	case errors.Is(err, train.ErrInterrupted) && c.Context.Err() != nil:
		return &exitError{code: client.ExitInterrupted}
	case errors.As(err, &f):
		text := "infer: " + f.Message
		if strings.Contains(f.Message, "out of memory") {
			text += "\n  - take a smaller --batch-size"
		}
		return &exitError{client.ExitError, text}
	case err != nil:
		return err
	}
	if !c.Bool("quiet") {
		e.inferred(out)
	}
	_, err = fmt.Fprintln(e.Out, e.relative(out.Dir))
	return err
}

// inferred says in a few lines what came of it.
func (e *Env) inferred(o *inference.Outcome) {
	if o.Accuracy != nil {
		e.say("accuracy %.2f %%, macro F1 %.4f on %d images", 100**o.Accuracy, *o.MacroF1, o.Evaluated)
	}
	text := fmt.Sprintf("%d images in %s", o.Images, roundly(time.Duration(o.Seconds*float64(time.Second))))
	if o.Suspicious > 0 {
		text += fmt.Sprintf(", %d suspicious", o.Suspicious)
	}
	if o.Pictures > 0 {
		text += fmt.Sprintf(", %d pictures", o.Pictures)
	}
	if o.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped (see %s)", o.Skipped, filepath.Join(e.relative(o.Dir), inference.LogFile))
	}
	e.say("%s", text)
	e.say("wrote %s", strings.Join(o.Files, ", "))
}

// inferConfig lays the layers of the configuration over one another.
func (e *Env) inferConfig(c *ucli.Context) (*config.Config, error) {
	conf := infer.New()
	name := c.String("config")
	path := name
	if path == "" {
		path = infer.ConfigFile
	}
	b, err := os.ReadFile(e.path(path))
	switch {
	case err == nil:
		if err := conf.ReadFile(path, b); err != nil {
			return nil, err
		}
	case !os.IsNotExist(err) || name != "":
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if err := conf.ReadEnvironment(infer.EnvironmentPrefix, e.Environ); err != nil {
		return nil, err
	}
	var faults config.Faults
	take := func(err error) {
		var f config.Fault
		if errors.As(err, &f) {
			faults = append(faults, f)
		}
	}
	for _, pair := range c.StringSlice("set") {
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			return nil, usage("infer: --set %s: want KEY=VALUE, such as --set gradcam.top_k=3", pair)
		}
		take(conf.SetText(strings.TrimSpace(key), text, config.Flag, "--set "+strings.TrimSpace(key)))
	}
	for _, f := range inferFlags {
		if c.IsSet(f.flag) {
			take(conf.SetText(f.key, c.String(f.flag), config.Flag, "--"+f.flag))
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	return conf, nil
}

// inferBar shows how many images are done: on a terminal a bar, elsewhere a
// line now and then.
type inferBar struct {
	e     *Env
	quiet bool
	drawn bool
	began time.Time
	last  time.Time
}

func (b *inferBar) show(what string, done, total int64) {
	if b.quiet || total == 0 {
		return
	}
	now := b.e.Now()
	rate := float64(done) / max(now.Sub(b.began).Seconds(), 1e-3)
	text := fmt.Sprintf("%s %d of %d images, %.0f a second", what, done, total, rate)
	if done < total && done > 0 {
		text += ", about " + roundly(time.Duration(float64(total-done)/rate*float64(time.Second))) + " left"
	}
	if !b.e.Live {
		if now.Sub(b.last) >= lineEvery && done < total {
			b.last = now
			b.e.say("%s", text)
		}
		return
	}
	const cells = 20
	full := int(done * cells / total)
	text = fmt.Sprintf("[%s%s] %s", strings.Repeat("#", full), strings.Repeat("-", cells-full), text)
	if w := b.e.Width() - 1; len(text) > w {
		text = text[:max(w, 0)]
	}
	fmt.Fprintf(b.e.Err, "\r\x1b[K%s", text)
	b.drawn = true
}

func (b *inferBar) clear() {
	if b.drawn {
		fmt.Fprint(b.e.Err, "\r\x1b[K")
		b.drawn = false
	}
}
