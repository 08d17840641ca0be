package mlflow

import "errors"

func openREST(string, Options) (Store, error) {
	return nil, errors.New("MLflow: this version writes mlruns folders only; give a folder as tracking URI")
}
