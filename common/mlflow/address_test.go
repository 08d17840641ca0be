package mlflow_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/mlflow"
)

// A server's address without http:// is asked about and makes no folder.
func TestAddressWithoutScheme(t *testing.T) {
	for _, uri := range []string{"127.0.0.1:5000", "localhost:5000", "mlflow.example.org:5000/", "//tracker:5000/x", "[::1]:5000"} {
		dir := t.TempDir()
		_, err := mlflow.Open(uri, mlflow.Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "did you mean http://"+strings.TrimPrefix(uri, "//")+"?") {
			t.Errorf("%s: %v", uri, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s made %s", uri, left[0].Name())
		}
	}
	for _, folder := range []string{"mlruns", "./127.0.0.1:5000", "runs/a:b", "a.b"} {
		dir := t.TempDir()
		s, err := mlflow.Open(folder, mlflow.Options{Dir: dir})
		if err != nil {
			t.Errorf("%s: %v", folder, err)
			continue
		}
		if want := filepath.Join(dir, folder); !strings.Contains(s.String(), want) {
			t.Errorf("%s: opened %s", folder, s)
		}
		s.Close(t.Context())
	}
}
