package mlflow_test

import (
	"errors"
	"testing"

	"atelier/common/mlflow"
)

func TestChoice(t *testing.T) {
	yes, no := true, false
	ask := func(on bool, err error) func() (bool, error) { return func() (bool, error) { return on, err } }
	for name, tc := range map[string]struct {
		c    mlflow.Choice
		want mlflow.Decision
		err  bool
	}{
		"nothing said":            {mlflow.Choice{}, mlflow.Decision{From: "configuration"}, false},
		"configuration":           {mlflow.Choice{Enabled: true, URI: "http://c"}, mlflow.Decision{On: true, URI: "http://c", From: "configuration"}, false},
		"environment":             {mlflow.Choice{Enabled: true}, mlflow.Decision{On: true, URI: "http://env", From: "configuration"}, false},
		"prompt over config":      {mlflow.Choice{Enabled: true, Prompt: ask(false, nil)}, mlflow.Decision{From: "prompt"}, false},
		"prompt says yes":         {mlflow.Choice{Enabled: true, Prompt: ask(true, nil), URI: "x"}, mlflow.Decision{On: true, URI: "x", From: "prompt"}, false},
		"not asked when off":      {mlflow.Choice{Prompt: ask(true, errors.New("asked"))}, mlflow.Decision{From: "configuration"}, false},
		"flag over prompt":        {mlflow.Choice{Flag: &yes, Enabled: true, Prompt: ask(false, errors.New("asked")), URI: "x"}, mlflow.Decision{On: true, URI: "x", From: "flag"}, false},
		"flag over configuration": {mlflow.Choice{Flag: &no, Enabled: true}, mlflow.Decision{From: "flag"}, false},
		"address asks for it":     {mlflow.Choice{FlagURI: "http://f", URI: "x"}, mlflow.Decision{On: true, URI: "http://f", From: "flag"}, false},
		"contradiction":           {mlflow.Choice{Flag: &no, FlagURI: "http://f"}, mlflow.Decision{}, true},
		"prompt broken off":       {mlflow.Choice{Enabled: true, Prompt: ask(false, errors.New("end of input"))}, mlflow.Decision{}, true},
	} {
		tc.c.Getenv = func(k string) string {
			if k == "MLFLOW_TRACKING_URI" {
				return "http://env"
			}
			return ""
		}
		got, err := tc.c.Decide()
		if (err != nil) != tc.err || err == nil && got != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
}
