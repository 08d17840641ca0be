package track

import (
	"cmp"
	"fmt"

	"atelier/common/mlflow"
	"atelier/common/setting"
)

// Names of the experiments, one for each stage.
const (
	TrainingExperiment       = "architectural-style-training"
	TuningExperiment         = "architectural-style-tuning"
	EvaluationExperiment     = "architectural-style-evaluation"
	ExplainabilityExperiment = "architectural-style-explainability"
)

// Keys of every command that can be tracked.
const (
	KeyEnabled    = "mlflow.enabled"
	KeyURI        = "mlflow.tracking_uri"
	KeyExperiment = "mlflow.experiment_name"
)

// Settings are the rows of a command whose work, called what, can be tracked.
// experiment is nil where it follows from something else, as help says.
func Settings(what string, enabled bool, enabledHelp string, experiment any, experimentHelp string) setting.Table {
	return setting.Table{
		{Name: KeyEnabled, Section: "MLflow", Type: setting.Truth(), Default: enabled, Help: enabledHelp, Flag: "mlflow", Usage: "track " + what + " with MLflow", Off: "no-mlflow", No: "do not track it"},
		{Name: KeyURI, Type: setting.Text("an address such as http://127.0.0.1:5000, or a folder"), Help: "http://127.0.0.1:5000 or a folder; null = mlruns/ in the working folder",
			Variable: "MLFLOW_TRACKING_URI", Hide: mlflow.SplitPassword},
		{Name: KeyExperiment, Type: setting.Text("a name"), Default: experiment, Help: cmp.Or(experimentHelp, "of the experiment that runs go to")},
	}
}

// Open opens what a configuration names for tracking; nil where it switches that
// off. An error means that nothing can be written there. dir is where relative
// paths start.
func Open(c *setting.Config, dir, command string, notify func(string)) (mlflow.Store, error) {
	if !c.Bool(KeyEnabled) {
		return nil, nil
	}
	if c.Secret(KeyURI).Set() && c.Get(KeyURI).Origin == setting.Flag && notify != nil {
		notify(mlflow.PasswordShown)
	}
	store, err := mlflow.Open(c.String(KeyURI), mlflow.Options{Dir: dir, Source: command, Notify: notify, Password: c.Secret(KeyURI)})
	if err != nil {
		return nil, fmt.Errorf("%s (%s): %w; or switch tracking off with --no-mlflow", KeyURI, c.Get(KeyURI).Source(), err)
	}
	return store, nil
}
