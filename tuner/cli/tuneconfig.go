package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"atelier/common/setting"
	"atelier/tuner/train"
	"atelier/tuner/tune"

	ucli "github.com/urfave/cli/v2"
)

// tuneConfig lays the layers of the configuration over one another.
func (e *Env) tuneConfig(c *ucli.Context, conf *tune.Config) error {
	// The tuning's own file says which training configuration it stands on.
	name := c.String("config")
	text, err := os.ReadFile(e.path(cmp.Or(name, tune.ConfigFile)))
	if err != nil && (name != "" || !errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("read the configuration: %w", err)
	}
	shown := cmp.Or(name, tune.ConfigFile)
	first := tune.New()
	first.Home = e.home()
	if err := first.ReadFile(shown, text); err != nil {
		return err
	}
	if base := first.Get(tune.KeyBase); base.Data != nil {
		below, err := os.ReadFile(e.path(base.Text()))
		if err == nil {
			err = conf.ReadTraining(base.Text(), below)
		} else if errors.Is(err, fs.ErrNotExist) && base.Text() == train.ConfigFile {
			err = nil // nobody has one
		}
		if err != nil {
			return fmt.Errorf("%s (%s): %w", tune.KeyBase, base.Source(), err)
		}
	}
	if err := conf.ReadFile(shown, text); err != nil {
		return err
	}
	if err := conf.ReadEnvironment(tune.EnvironmentPrefix, e.Environ); err != nil {
		return err
	}
	if err := e.tuneOverrides(c, conf); err != nil {
		return err
	}
	return e.trackingAddress(conf)
}

// trackingAddress takes MLflow's own variable where nothing else was said.
func (e *Env) trackingAddress(conf *tune.Config) error {
	if uri := e.environ("MLFLOW_TRACKING_URI"); uri != "" && conf.Get(tune.KeyTrackingURI).Data == nil {
		return conf.Set(tune.KeyTrackingURI, uri, setting.Environment, "MLFLOW_TRACKING_URI")
	}
	return nil
}

// tuneOverrides takes the flags.
func (e *Env) tuneOverrides(c *ucli.Context, conf *tune.Config) error {
	var faults setting.Faults
	take := func(err error) {
		var f setting.Fault
		if errors.As(err, &f) {
			faults = append(faults, f)
		}
	}
	if dir := c.String("data"); dir != "" {
		take(conf.Set(tune.KeyTrain, filepath.Join(dir, "train"), setting.Flag, "--data"))
		take(conf.Set(tune.KeyValidation, filepath.Join(dir, "validation"), setting.Flag, "--data"))
	}
	for _, pair := range c.StringSlice("set") {
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			return usage("tune: --set %s: want KEY=VALUE, such as --set image_size=96", pair)
		}
		take(conf.Override(strings.TrimSpace(key), text))
	}
	for _, f := range tuneFlags {
		if c.IsSet(f.flag) {
			take(conf.SetText(f.key, c.String(f.flag), setting.Flag, "--"+f.flag))
		}
	}
	take(e.tuneSwitches(c, conf))
	if c.Bool("mlflow") && c.Bool("no-mlflow") {
		return usage("tune: --mlflow and --no-mlflow exclude one another")
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// tuneSwitches takes the flags that a resumed tuning takes too.
func (e *Env) tuneSwitches(c *ucli.Context, conf *tune.Config) error {
	var faults []error
	if c.Bool("no-plots") {
		faults = append(faults, conf.Set(tune.KeyPlots, false, setting.Flag, "--no-plots"))
	}
	if c.Bool("mlflow") {
		faults = append(faults, conf.Set(tune.KeyTracking, true, setting.Flag, "--mlflow"))
	}
	if c.Bool("no-mlflow") {
		faults = append(faults, conf.Set(tune.KeyTracking, false, setting.Flag, "--no-mlflow"))
	}
	return errors.Join(faults...)
}

// resumeTuning reads the tuning that is gone on with.
func (e *Env) resumeTuning(c *ucli.Context, conf *tune.Config) (*tune.Resumption, error) {
	takes := []string{"resume", "trials", "no-plots", "mlflow", "no-mlflow", "shared", "trainer-bin", "quiet", "q", "addr", "timeout", "retry-for"}
	for _, f := range c.LocalFlagNames() {
		if !slices.Contains(takes, f) {
			return nil, usage("tune: --resume goes on as the tuning began; it does not take --%s", f)
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
	if err != nil {
		return nil, err
	}
	if err := e.tuneSwitches(c, conf); err != nil {
		return nil, err
	}
	return r, e.trackingAddress(conf)
}

// askTuning asks for what neither flag nor environment has said.
func (e *Env) askTuning(ctx context.Context, conf *tune.Config) error {
	q := &questions{e: e, in: bufio.NewReader(e.In), verb: "tune"}
	if v := conf.Get(tune.KeyModel); v.Origin < setting.Prompt {
		name, err := q.model(ctx, v.Text())
		if err != nil {
			return err
		}
		if err := conf.Set(tune.KeyModel, name, setting.Prompt, "prompt"); err != nil {
			return err
		}
	}
	// A file that switches tracking off has answered.
	if v := conf.Get(tune.KeyTracking); v.Origin < setting.Prompt && v.Data == true {
		yes, err := q.yes(ctx, "Track this tuning with MLflow?")
		if err != nil {
			return err
		}
		return conf.Set(tune.KeyTracking, yes, setting.Prompt, "prompt")
	}
	return nil
}

// tuneFault is a usage error if the command line is at fault.
func (e *Env) tuneFault(err error) error {
	if train.FromFlags(err) {
		return usage("tune: %s", err)
	}
	return err
}
