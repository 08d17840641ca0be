package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"atelier/common/setting"
	"atelier/tuner/infer"
	"atelier/tuner/train"
	"atelier/tuner/tune"

	ucli "github.com/urfave/cli/v2"
)

// documents are the commands that take their settings in layers.
var documents = []setting.Document{train.Document, tune.Document, infer.Document}

// settingFlags are the flags that a document declares, then --set and --config.
func settingFlags(d setting.Document) []ucli.Flag {
	var values, switches []ucli.Flag
	for _, s := range d.Table {
		switch {
		case s.Flag != "" && s.Type.Switch:
			switches = append(switches, &ucli.BoolFlag{Name: s.Flag, Usage: s.Usage})
		case s.Flag != "":
			values = append(values, &ucli.StringFlag{Name: s.Flag, Usage: s.Usage})
		}
		if s.Off != "" {
			switches = append(switches, &ucli.BoolFlag{Name: s.Off, Usage: s.No})
		}
	}
	return append(append(values, switches...),
		&ucli.StringSliceFlag{Name: "set", Usage: "`KEY=VALUE`: any setting of the configuration file, such as " + d.Such + " (may be given again)"},
		&ucli.StringFlag{Name: "config", Usage: "configuration `FILE` (default: " + d.File + " if it is there)"})
}

// configuration is what the layers are laid into.
type configuration interface {
	Set(key string, data any, o setting.Origin, where string) error
	SetText(key, text string, o setting.Origin, where string) error
	Override(key, text string) error // KEY=VALUE of --set
	ReadEnvironment(prefix string, environ []string) error
	Get(key string) setting.Value
}

// readConfig is the file that --config names, or the one that lies where it is
// looked for, if any.
func (e *Env) readConfig(c *ucli.Context, d setting.Document) (name string, text []byte, err error) {
	name = d.File
	if c.IsSet("config") {
		name = c.String("config")
	}
	text, err = os.ReadFile(e.path(name))
	if errors.Is(err, fs.ErrNotExist) && !c.IsSet("config") {
		return name, nil, nil
	}
	if err = e.opened(name, err); err != nil {
		err = fmt.Errorf("read the configuration: %w", err)
	}
	return name, text, err
}

// layers takes what is said beside the file: the environment, --set and the
// flags, and where nothing else is given another program's variable. first is
// laid below the flags and above the environment; it may be nil. It may write
// files, so that faults of the others end the command before it.
func (e *Env) layers(c *ucli.Context, d setting.Document, conf configuration, first func() error) error {
	if err := conf.ReadEnvironment(d.Prefix, e.Environ); err != nil {
		return err
	}
	var faults setting.Faults
	// Faults are collected: one look at all of them is enough to mend the command line.
	take := func(err error) {
		var one setting.Fault
		var more setting.Faults
		if errors.As(err, &more) {
			faults = append(faults, more...)
		} else if errors.As(err, &one) {
			faults = append(faults, one)
		}
	}
	given := func() error {
		for _, pair := range c.StringSlice("set") {
			key, text, ok := strings.Cut(pair, "=")
			if !ok {
				return usage("%s: --set %s: want KEY=VALUE, such as --set %s", d.Command, pair, d.Such)
			}
			take(conf.Override(strings.TrimSpace(key), text))
		}
		for _, s := range d.Table {
			if s.Flag != "" && !s.Type.Switch && c.IsSet(s.Flag) {
				take(conf.SetText(s.Said(), c.String(s.Flag), setting.Flag, "--"+s.Flag))
			}
		}
		take(e.switches(c, d, conf))
		return faults.OrNil()
	}
	if err := given(); err != nil {
		return err
	}
	if first != nil {
		err := first()
		if take(err); err != nil && len(faults) == 0 {
			return err // not of a setting
		}
		if err := given(); err != nil { // once more: they count more than what first has set
			return err
		}
	}
	// Last, since they fill only what nothing else has said.
	return e.otherVariables(d, conf)
}

// switches takes the flags that say yes or no.
func (e *Env) switches(c *ucli.Context, d setting.Document, conf configuration) error {
	var faults setting.Faults
	for _, s := range d.Table {
		on, off := s.Flag != "" && s.Type.Switch && c.IsSet(s.Flag), s.Off != "" && c.Bool(s.Off)
		var err error
		switch {
		case on && off && c.Bool(s.Flag):
			err = setting.Fault{Message: fmt.Sprintf("--%s and --%s exclude one another", s.Flag, s.Off), Origin: setting.Flag}
		case off:
			err = conf.Set(s.Name, false, setting.Flag, "--"+s.Off)
		case on:
			err = conf.Set(s.Name, c.Bool(s.Flag), setting.Flag, "--"+s.Flag)
		}
		var f setting.Fault
		if errors.As(err, &f) {
			faults = append(faults, f)
		}
	}
	return faults.OrNil()
}

// otherVariables takes variables of other programs where nothing else is said.
func (e *Env) otherVariables(d setting.Document, conf configuration) error {
	for _, s := range d.Table {
		if s.Variable == "" || conf.Get(s.Name).Data != nil {
			continue
		}
		if text := e.environ(s.Variable); text != "" {
			if err := conf.SetText(s.Name, text, setting.Environment, s.Variable); err != nil {
				return err
			}
		}
	}
	return nil
}

// settingFault is a usage error if the command line is at fault.
func settingFault(d setting.Document, err error) error {
	if train.FromFlags(err) {
		return usage("%s: %s", d.Command, err)
	}
	return err
}

// documentOf is what a verb takes in layers, nil where it takes none.
func documentOf(leaf *ucli.Command) *setting.Document {
	for i := range documents {
		if leaf != nil && documents[i].Command == leaf.Name {
			return &documents[i]
		}
	}
	return nil
}
