package train_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/mlflow/mlflowtest"
	"atelier/common/secret"
	"atelier/tuner/track"
)

// The password in a tracking URI goes to the server as what it is, and is in none of the
// training's files, parameters, warnings and advice.
func TestTrackingPassword(t *testing.T) {
	const password = "s3cret/Pass+word"
	base := folders(t)
	t.Setenv("XDG_STATE_HOME", filepath.Join(base, "state"))
	for _, name := range []string{"USERNAME", "PASSWORD", "TOKEN"} {
		t.Setenv("MLFLOW_TRACKING_"+name, "")
	}
	server := mlflowtest.New(t)
	server.User, server.Password = "ada", password
	uri := strings.Replace(server.URL, "http://", "http://ada:s3cret%2FPass%2Bword@", 1)
	r, err := local(t, t.Context(), plan(t, base, "mlflow.enabled=true", "mlflow.tracking_uri="+uri), "", nil)
	if err != nil || r.History.Status != "finished" {
		t.Fatal(err)
	}
	runs := server.Runs(track.TrainingExperiment)
	if len(runs) != 1 || runs[0].Params["mlflow.tracking_uri"] == "" {
		t.Fatalf("%d runs", len(runs))
	}
	said := fmt.Sprintf("%v %v %+v %q", r.Hint, r.Warnings(), runs, server.Problems())
	if !strings.Contains(said, "on the command line") {
		t.Errorf("no warning of a password on the command line: %q", r.Warnings())
	}
	files := 0
	err = filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		said += string(b)
		files++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said, server.URL[len("http://"):]) || files < 5 {
		t.Errorf("%d files: the address is not even in them", files)
	}
	for _, form := range append(secret.Forms(password), "s3cret") {
		if i := strings.Index(said, form); i >= 0 {
			t.Errorf("shown as %s: %q", form, said[max(0, i-200):i+20])
		}
	}
}
