package mlflow

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"atelier/common/secret"
)

// PasswordShown warns of a tracking URI with a password on the command line.
const PasswordShown = "the password of MLflow is on the command line, where every user of this machine can read it: use MLFLOW_TRACKING_PASSWORD_FILE or MLFLOW_TRACKING_PASSWORD"

// SplitPassword takes the password out of a tracking URI, which is shown and stored; the user stays
// in it. Give both to Open.
func SplitPassword(uri string) (string, secret.Text) {
	u, err := url.Parse(uri)
	if err != nil || u.User == nil {
		return uri, secret.Text{}
	}
	password, ok := u.User.Password()
	if !ok {
		return uri, secret.Text{}
	}
	u.User = url.User(u.User.Username())
	return u.String(), secret.New(password)
}

// credentials are user and password, or a token, or none.
type credentials struct {
	user     string
	password secret.Text
	token    secret.Text
}

// findCredentials takes them from the address, else from the variables of MLflow's own client, or from
// the files that the same variables with _FILE behind name.
func findCredentials(inside *url.Userinfo, password secret.Text) (credentials, error) {
	if inside != nil {
		if text, ok := inside.Password(); ok {
			password = secret.New(text)
		}
		if password.Set() {
			return credentials{user: inside.Username(), password: password}, nil
		}
	}
	c := credentials{user: os.Getenv("MLFLOW_TRACKING_USERNAME")}
	if inside != nil && inside.Username() != "" {
		c.user = inside.Username()
	}
	var err error
	if c.password, err = variable("MLFLOW_TRACKING_PASSWORD"); err != nil {
		return c, err
	}
	c.token, err = variable("MLFLOW_TRACKING_TOKEN")
	return c, err
}

// variable is a secret from the environment, else from the file that NAME_FILE names.
func variable(name string) (secret.Text, error) {
	if s := secret.FromEnv(name); s.Set() {
		return s, nil
	}
	file := os.Getenv(name + "_FILE")
	if file == "" {
		return secret.Text{}, nil
	}
	s, err := secret.FromFile(file)
	if err != nil {
		return s, fmt.Errorf("MLflow: %s_FILE: %w", name, err)
	}
	return s, nil
}

// sign adds them to a request. User and password count before a token, as MLflow's client has it.
func (c credentials) sign(r *http.Request) {
	switch {
	case c.user != "" && c.password.Set():
		r.SetBasicAuth(c.user, c.password.Reveal())
	case c.token.Set():
		r.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
}

// secrets are what must not be shown: also the header that is made of user and password.
func (c credentials) secrets() []secret.Text {
	out := []secret.Text{c.password, c.token}
	if c.password.Set() {
		out = append(out, secret.New(base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.password.Reveal()))))
	}
	return out
}
