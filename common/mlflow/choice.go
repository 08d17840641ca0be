package mlflow

import (
	"errors"
	"os"
)

// Choice decides whether and where a command tracks: a flag before the prompt,
// the prompt before the configuration.
type Choice struct {
	Flag    *bool                // --mlflow true, --no-mlflow false; nil: neither was given
	FlagURI string               // --mlflow-uri; it asks for tracking unless --no-mlflow is given
	Prompt  func() (bool, error) // asks the person; nil: nobody can be asked
	Enabled bool                 // the configuration's mlflow.enabled
	URI     string               // the configuration's mlflow.tracking_uri; "" = null
	Getenv  func(string) string  // os.Getenv
}

// Decision is what Choice came to.
type Decision struct {
	On   bool
	URI  string // for Open
	From string // who decided: "flag", "prompt" or "configuration"
}

// Decide follows runbook 4.2: with a flag nobody is asked; the person is asked
// only when the configuration has tracking on, and where nobody can be asked
// the configuration counts. The address is the flag's, else the
// configuration's, else that of MLFLOW_TRACKING_URI, else ./mlruns.
func (c Choice) Decide() (Decision, error) {
	d := Decision{On: c.Enabled, From: "configuration"}
	switch {
	case c.Flag != nil && !*c.Flag && c.FlagURI != "":
		return d, errors.New("--no-mlflow and --mlflow-uri contradict each other: give one of them")
	case c.Flag != nil:
		d.On, d.From = *c.Flag, "flag"
	case c.FlagURI != "":
		d.On, d.From = true, "flag"
	case c.Enabled && c.Prompt != nil:
		on, err := c.Prompt()
		if err != nil {
			return d, err
		}
		d.On, d.From = on, "prompt"
	}
	if !d.On {
		return d, nil
	}
	getenv := c.Getenv
	if getenv == nil {
		getenv = os.Getenv
	}
	for _, uri := range []string{c.FlagURI, c.URI, getenv("MLFLOW_TRACKING_URI")} {
		if uri != "" {
			d.URI = uri
			break
		}
	}
	return d, nil
}
