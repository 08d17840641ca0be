package mlflow_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atelier/common/mlflow"
	"atelier/common/mlflow/mlflowtest"
	"atelier/common/secret"
)

// noCredentials empties the variables that hold some.
func noCredentials(t *testing.T) {
	t.Helper()
	for _, name := range []string{"USERNAME", "PASSWORD", "TOKEN", "PASSWORD_FILE", "TOKEN_FILE"} {
		t.Setenv("MLFLOW_TRACKING_"+name, "")
	}
}

// Credentials go to the server and nowhere else.
func TestRESTCredentials(t *testing.T) {
	for _, kind := range []string{"environment", "token", "password file", "token file", "address", "taken out", "user in the address", "wrong", "wrong token"} {
		t.Run(kind, func(t *testing.T) {
			server := mlflowtest.New(t)
			noCredentials(t)
			uri := server.URL
			o := quick(t, &notes{})
			file := filepath.Join(t.TempDir(), "secret")
			must(t, os.WriteFile(file, []byte("s3cret!\n"), 0o600))
			switch kind {
			case "token", "token file":
				server.Token = "s3cret!"
			case "wrong":
				server.User, server.Password = "ada", "other"
			case "wrong token":
				server.Token = "other"
			default:
				server.User, server.Password = "ada", "s3cret!"
			}
			inside := strings.Replace(uri, "http://", "http://ada:s3cret!@", 1)
			switch kind {
			case "environment":
				t.Setenv("MLFLOW_TRACKING_USERNAME", "ada")
				t.Setenv("MLFLOW_TRACKING_PASSWORD", "s3cret!")
			case "token", "wrong token":
				t.Setenv("MLFLOW_TRACKING_TOKEN", "s3cret!")
			case "password file":
				t.Setenv("MLFLOW_TRACKING_USERNAME", "ada")
				t.Setenv("MLFLOW_TRACKING_PASSWORD_FILE", file)
			case "token file":
				t.Setenv("MLFLOW_TRACKING_TOKEN_FILE", file)
			case "address", "wrong":
				uri = inside
			case "taken out":
				uri, o.Password = mlflow.SplitPassword(inside)
			case "user in the address":
				uri = strings.Replace(uri, "http://", "http://ada@", 1)
				t.Setenv("MLFLOW_TRACKING_PASSWORD", "s3cret!")
			}
			wrong := strings.HasPrefix(kind, "wrong")
			said := &notes{}
			o.Notify = quick(t, said).Notify
			s := open(t, uri, o)
			r, err := s.StartRun(context.Background(), mlflow.RunSpec{Experiment: "e"})
			must(t, err)
			must(t, r.Metric("m", 0, 0, noon), r.End(mlflow.Finished, noon))
			err = s.Close(context.Background())
			if (err != nil) != wrong || err != nil && !strings.Contains(err.Error(), "MLFLOW_TRACKING_USERNAME") {
				t.Errorf("%v", err)
			}
			shown := fmt.Sprintf("%v %v %v %v %+v %#v", err, said, s, s.Hint(), o, o)
			for _, f := range left(t, o.Buffer) {
				b, err := os.ReadFile(f)
				must(t, err)
				shown += string(b)
			}
			if strings.Contains(shown, "s3cret") {
				t.Errorf("the password is shown: %s", shown)
			}
			if n := len(server.Runs("e")); (n == 1) == wrong {
				t.Errorf("%d runs", n)
			}
			for _, name := range []string{"MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"} {
				if v, ok := os.LookupEnv(name); ok && v != "" {
					t.Errorf("children inherit %s", name)
				}
			}
		})
	}
}

// A file of a password that others can read is refused before anything is sent.
func TestRESTCredentialsInOpenFile(t *testing.T) {
	noCredentials(t)
	file := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(file, []byte("s3cret!\n"), 0o644), os.Chmod(file, 0o644))
	t.Setenv("MLFLOW_TRACKING_TOKEN_FILE", file)
	_, err := mlflow.Open("http://127.0.0.1:1", quick(t, &notes{}))
	if err == nil || !strings.Contains(err.Error(), "MLFLOW_TRACKING_TOKEN_FILE") || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
}

// A server that repeats what it was sent, in whatever form and however long, makes nobody show it.
func TestRESTServerRepeatsCredentials(t *testing.T) {
	noCredentials(t)
	const password = "s3cret/and+long enough to be cut in half"
	t.Setenv("MLFLOW_TRACKING_USERNAME", "ada")
	t.Setenv("MLFLOW_TRACKING_PASSWORD", password)
	header := base64.StdEncoding.EncodeToString([]byte("ada:" + password))
	for status, body := range map[int]string{
		400: `{"error_code":"INVALID_PARAMETER_VALUE","message":"` + strings.Repeat("x", 280) + password + `"}`,
		500: "<html>Authorization: Basic " + header + "</html>",
		502: strings.Join(secret.Forms(password), " "),
		200: strings.Repeat("x", 70) + password,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, got, _ := r.BasicAuth(); got != password {
				t.Errorf("the server got %q", got)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}))
		s := open(t, server.URL, quick(t, &notes{}))
		_, err := s.Experiment(context.Background(), "e")
		server.Close()
		if err == nil {
			t.Errorf("%d: no error", status)
		}
		for _, form := range append(secret.Forms(password), header, "s3cret") {
			if strings.Contains(fmt.Sprint(err), form) {
				t.Errorf("%d: shown as %s: %v", status, form, err)
			}
		}
	}
}

func TestSplitPassword(t *testing.T) {
	for uri, want := range map[string][2]string{
		"http://h:5000":             {"http://h:5000", ""},
		"https://ada@h/x":           {"https://ada@h/x", ""},
		"https://ada:p%2Fq@h:1/x?y": {"https://ada@h:1/x?y", "p/q"},
		"mlruns":                    {"mlruns", ""},
		"file:///tmp/a:b@c":         {"file:///tmp/a:b@c", ""},
		"http://a b:c@h":            {"http://a b:c@h", ""}, // no address: Open says so
		"":                          {"", ""},
	} {
		got, password := mlflow.SplitPassword(uri)
		if got != want[0] || password.Reveal() != want[1] {
			t.Errorf("SplitPassword(%s) = %s, %q", uri, got, password.Reveal())
		}
	}
}
