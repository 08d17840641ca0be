package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"atelier/common/checkpoint"
	"atelier/common/client"
	"atelier/common/files"
	"atelier/common/nearest"
	"atelier/tuner/train"
	"atelier/tuner/weights"

	ucli "github.com/urfave/cli/v2"
)

// weightsCommands work without a cluster.
func (e *Env) weightsCommands() *ucli.Command {
	return group("weights", "fetch published weights, convert weight files",
		verb(&ucli.Command{Name: "list", Aliases: []string{"ls"}, Usage: "list the weights that torchvision publishes for the architectures here",
			Flags: []ucli.Flag{outputFlag()}, Action: e.listWeights}, 0, 0,
			"atelier weights list", "atelier weights list -o json"),
		verb(&ucli.Command{Name: "pull", Usage: "download published weights and verify their hash", ArgsUsage: "NAME",
			Description: "NAME is one of the list, or the name of a file that carries its SHA-256's first digits\n" +
				"(resnet18-f37072fd.pth). The file goes to $ATELIER_CACHE/weights, or to atelier/weights in the\n" +
				"user's cache folder, and is downloaded once; a download that was interrupted is resumed.\n" +
				"The path goes to standard output.",
			Flags: []ucli.Flag{
				&ucli.StringFlag{Name: "to", Usage: "`FILE` or folder that gets a copy"},
				overwriteFlag(),
				&ucli.StringFlag{Name: "from", EnvVars: []string{"ATELIER_WEIGHTS_URL"}, Value: weights.Server, Usage: "`URL` of the folder that has the files"},
				&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only the path"},
			}, Action: e.pullWeights}, 1, 1,
			"atelier weights pull resnet18", "atelier weights pull efficientnet_b0 --to pretrained/",
			"atelier weights pull resnet50-v1 --from http://mirror.example/models"),
		verb(&ucli.Command{Name: "convert", Usage: "convert a checkpoint or model file to .pth, .safetensors or .onnx", ArgsUsage: "IN OUT",
			Description: "IN is a .pth or .safetensors file, whatever its name; OUT's format is given by its extension.\n" +
				"Names, shapes and bytes of the model's tensors stay, and so does what identifies the model:\n" +
				"arch, class_to_idx, image size, normalisation, epoch, best loss, settings. Data needed only to\n" +
				"resume training is dropped and listed. Python opens the .pth with\n" +
				"torch.load(f, weights_only=True).\n\n" +
				"An .onnx file (opset 17) is the network in evaluation, written by atelier-trainer: input images,\n" +
				"float32 [batch, 3, size, size], RGB from 0 to 1 less the mean and divided by the standard\n" +
				"deviation; output logits [batch, classes]. Classes, mean and std are in its metadata.",
			Flags: []ucli.Flag{
				&ucli.BoolFlag{Name: "bare", Usage: "the model's tensors only, as load_state_dict takes them"},
				&ucli.StringFlag{Name: "model", Usage: "of an .onnx file: `ARCHITECTURE` of IN, where IN does not contain it"},
				&ucli.IntFlag{Name: "image-size", Usage: "of an .onnx file: side of the images in `PIXELS` (default: IN's, else 224)"},
				trainerFlag(), overwriteFlag()},
			Action: e.convertWeights}, 2, 2,
			"atelier weights convert s-k3v9q2ma-7-e20.pth best_model.pth", "atelier weights convert best_model.pth best_model.safetensors",
			"atelier weights convert best_model.pth best_model.onnx",
			"atelier weights convert --bare best_model.pth state.pth"),
	)
}

type weightsRecord struct {
	Name       string `json:"name"`
	Weights    string `json:"weights"`
	File       string `json:"file"`
	Parameters int64  `json:"parameters"`
}

// listWeights prints the table that is built in; nothing is downloaded.
func (e *Env) listWeights(c *ucli.Context) error {
	if err := checkFormat(c); err != nil {
		return err
	}
	records := []weightsRecord{}
	for _, p := range weights.Catalogue() {
		records = append(records, weightsRecord{p.Name, p.Weights, p.File, p.Parameters})
	}
	return e.print(c, records, func() table {
		t := table{head: []string{"NAME", "WEIGHTS", "PARAMETERS", "FILE"}}
		for _, r := range records {
			t.rows = append(t.rows, []string{r.Name, r.Weights, count(r.Parameters), r.File})
		}
		return t
	})
}

// pullWeights prints the path of a file whose hash is what its name says. Where it is to go is
// looked at before the download, and a copy that is there already is left as it is; what is wrong
// there never costs the download, which stays in the cache.
func (e *Env) pullWeights(c *ucli.Context) error {
	name := c.Args().First()
	file, err := weights.Find(name)
	if err != nil {
		if n, ok := nearest.Close(name, weights.Names()); ok {
			return usage("weights pull: %s; did you mean %q?", err, n)
		}
		return usage("weights pull: %s; known are %s", err, strings.Join(weights.Names(), ", "))
	}
	// Everything on the command line is looked at before a byte is loaded.
	if _, err := weights.ParseServer(c.String("from")); err != nil {
		return usage("weights pull: --from %s", err)
	}
	to, named := c.String("to"), true
	if to != "" {
		to = e.path(to)
		// Into a folder goes the published name.
		if st, err := os.Stat(to); err == nil && st.IsDir() {
			to, named = filepath.Join(to, file.File), false // the name says what it is
		} else if err == nil && !st.Mode().IsRegular() {
			_, err := e.place(c, to, nil)
			return err
		}
	}
	folder, err := weights.DefaultFolder()
	if err != nil {
		return err
	}
	progress := &bytesBar{bar: bar{e: e, every: redrawEvery}, what: file.File}
	p := weights.Puller{Server: c.String("from"), Folder: e.path(folder)}
	if !c.Bool("quiet") {
		p.Progress = progress.show
	}
	e.announce(c, p, file)
	got, err := p.Pull(c.Context, file)
	progress.clear()
	if _, ok := errors.AsType[weights.Unreachable](err); ok && c.Context.Err() == nil {
		return fmt.Errorf("%w; copy %s into %s from a machine that has it, or give another server: --from URL", err, file.File, p.Folder)
	}
	if errors.Is(err, weights.ErrNotFound) {
		return &exitError{client.ExitNotFound, err.Error(), err}
	}
	if err != nil {
		return err
	}
	path := got.Path
	if to != "" {
		path = to
		// What is there and the same is no reason to ask for --overwrite.
		if !sameFile(to, got.Bytes, got.SHA256) {
			replaces, err := e.place(c, to, func() bool { return !named })
			if err != nil {
				return fmt.Errorf("%w (the weights are in the cache: %s)", err, got.Path)
			}
			if err := copyTo(c.Context, got, to); err != nil {
				return err
			}
			e.replaced(c, to, replaces)
		}
	}
	if !c.Bool("quiet") {
		how := "downloaded"
		if got.Cached {
			how = "downloaded earlier"
		}
		e.say("%s, %s, %s, SHA-256 %s as in its name", file.File, how, bytesOf(got.Bytes), got.SHA256[:12])
	}
	_, err = fmt.Fprintln(e.Out, path)
	return err
}

// copyTo copies a file of the cache: whole, or not at all.
func copyTo(ctx context.Context, got weights.Pulled, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := files.Copy(got.Path, to, 0o644); err != nil {
		return fmt.Errorf("%w (the file is in the cache: %s)", err, got.Path)
	}
	return nil
}

// convertWeights prints the path of the new file, and says what of the old one is not in it.
func (e *Env) convertWeights(c *ucli.Context) error {
	in, out := e.path(c.Args().Get(0)), e.path(c.Args().Get(1))
	asONNX := strings.EqualFold(filepath.Ext(out), ".onnx")
	if _, err := checkpoint.FormatOf(out); err != nil && !asONNX {
		return usage("weights convert: %s: the name must end in .pth, .pt, .safetensors or .onnx", out)
	}
	if err := onlyFor(c, asONNX); err != nil {
		return err
	}
	replaces := false
	if from, err := os.Stat(in); err == nil {
		if to, err := os.Stat(out); err != nil || !os.SameFile(from, to) { // Export says so of one and the same
			if replaces, err = e.place(c, out, nil); err != nil {
				return err
			}
		}
	}
	if asONNX {
		return e.convertToONNX(c, in, out, replaces)
	}
	got, err := checkpoint.Export(in, out, c.Bool("bare"))
	if err != nil {
		return fmt.Errorf("weights convert: %w", err)
	}
	e.replaced(c, out, replaces)
	e.say("%s to %s: %d tensors, %d values, %s", got.From, got.To, got.Tensors, got.Values, bytesOf(got.Info.Bytes))
	for _, text := range got.Told {
		e.say("%s", text)
	}
	if len(got.Dropped) > 0 {
		e.say("left out: %s", strings.Join(got.Dropped, ", "))
	}
	_, err = fmt.Fprintln(e.Out, out)
	return err
}

// onlyFor refuses flags that mean nothing for the format asked for.
func onlyFor(c *ucli.Context, asONNX bool) error {
	if asONNX && c.Bool("bare") {
		return usage("weights convert: --bare is not for .onnx files")
	}
	for _, flag := range []string{"model", "image-size"} {
		if !asONNX && c.IsSet(flag) {
			return usage("weights convert: --%s is only for .onnx files", flag)
		}
	}
	if n := c.Int("image-size"); c.IsSet("image-size") && (n < 1 || n > 4096) {
		return usage("weights convert: --image-size %d: want 1 to 4096 pixels", n)
	}
	return nil
}

// convertToONNX has the trainer write the network; it prints the path of the new file.
func (e *Env) convertToONNX(c *ucli.Context, in, out string, replaces bool) error {
	if _, err := os.Stat(in); err != nil {
		return fmt.Errorf("weights convert: open checkpoint: %w", err)
	}
	trainer, err := train.FindTrainer(e.folder(c, "trainer-bin"))
	if err != nil {
		return fmt.Errorf("weights convert: %w", err)
	}
	got, err := weights.ONNX{Trainer: trainer, In: in, Out: out, Arch: c.String("model"), ImageSize: c.Int("image-size")}.Write(c.Context)
	if err != nil {
		return fmt.Errorf("weights convert: %w", err)
	}
	e.replaced(c, out, replaces)
	e.say("%s with %d classes for images of %d px: %s, SHA-256 %s", got.Model, got.Classes, got.ImageSize, bytesOf(got.Bytes), got.SHA256[:12])
	_, err = fmt.Fprintln(e.Out, out)
	return err
}

// bytesBar shows how a download goes on.
type bytesBar struct {
	bar
	bytes pace
	what  string // is downloaded
}

// show draws how much there is of how much.
func (b *bytesBar) show(done, total int64) {
	now := b.e.Now()
	if b.bytes.since.IsZero() {
		b.begin(now)
	}
	text := b.what + " " + bytesOf(done)
	if total > 0 {
		text += fmt.Sprintf(" of %s, %d %%", bytesOf(total), done*100/total)
	}
	if rate, rest := b.bytes.at(now, done, total); rate > 0 {
		text += fmt.Sprintf(", %s/s%s", bytesOf(int64(rate)), left(rest))
	}
	b.draw(now, text)
}
