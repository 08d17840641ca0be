package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"atelier/common/setting"
	"atelier/tuner/train"
	"atelier/tuner/tune"

	ucli "github.com/urfave/cli/v2"
)

// tuneConfig lays the layers of the configuration over one another: defaults, training configuration, tuning file,
// environment, flags. The tuning file is read twice, since it names the one that lies below it.
func (e *Env) tuneConfig(c *ucli.Context, conf *tune.Config) error {
	// The tuning's own file says which training configuration it stands on.
	shown, text, err := e.readConfig(c, tune.Document)
	if err != nil {
		return err
	}
	first := tune.New()
	first.Home = e.home()
	if err := first.ReadFile(shown, text); err != nil {
		return err
	}
	if base := first.Get(tune.KeyBase); base.Data != nil {
		below, err := os.ReadFile(e.path(base.Text()))
		if err == nil {
			err = conf.ReadTraining(base.Text(), below)
		} else if errors.Is(err, fs.ErrNotExist) && base.Text() == train.Document.File {
			err = nil // nobody has one
		}
		if err != nil {
			return fmt.Errorf("%s (%s): %w", tune.KeyBase, base.Source(), err)
		}
	}
	if err := conf.ReadFile(shown, text); err != nil {
		return err
	}
	return e.layers(c, tune.Document, conf, func() error { return e.dataFolders(c, conf, "train", "validation") })
}

// resumeTuning reads the tuning that is resumed. It goes on with the question it began with, so only flags that do not
// change it are taken; --trials may raise the number, of a folder that is named.
func (e *Env) resumeTuning(c *ucli.Context, conf *tune.Config) (*tune.Resumption, error) {
	takes := []string{"resume", "trials", "no-plots", "mlflow", "no-mlflow", "shared", "trainer-bin", "quiet", "q", "addr", "timeout", "retry-for"}
	// Any other flag would change the question in the middle of the search.
	for _, f := range c.LocalFlagNames() {
		if !slices.Contains(takes, f) {
			return nil, usage("tune: --resume uses the tuning's own settings; it does not take --%s", f)
		}
	}
	dir := c.Args().First()
	if dir != "" {
		dir = e.path(dir)
	}
	trials := int64(0)
	if text := c.String("trials"); text != "" {
		var err error
		if trials, err = setting.Whole(text); err != nil || trials < 1 {
			return nil, usage("tune: --trials %s: want a whole number from 1 on, all trials together", text)
		}
		if dir == "" {
			return nil, usage("tune: --resume --trials %d: name the folder too: --resume DIR --trials %d", trials, trials)
		}
	}
	r, err := tune.Resume(dir, e.Dir, trials, conf)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound("tune: %s", err)
	}
	if err != nil {
		return nil, err
	}
	if err := e.switches(c, tune.Document, conf); err != nil {
		return nil, err
	}
	return r, e.otherVariables(tune.Document, conf)
}
