package webguard

import (
	"errors"
	"fmt"
	"strings"

	"atelier/common/files"
	"atelier/common/secret"
)

// least is the length of a token of one's own. A link is sealed with the token, so a short one could be guessed
// from a link without asking the server.
const least = 32

// NewToken is a token of 256 random bits.
func NewToken() secret.Text { return secret.New(random()) }

// WriteToken keeps a token for the user's own programs, mode 0600, as a header line: `curl -H @FILE` sends it, and no
// list of processes shows it.
func WriteToken(file string, token secret.Text) error {
	return files.Write(file, []byte("Authorization: Bearer "+token.Reveal()+"\n"), 0o600)
}

// ReadToken reads a token, alone or as a header line. Errors: fs.ErrNotExist, *secret.OpenError where others can read the
// file; none holds any of its text.
func ReadToken(file string) (secret.Text, error) {
	b, err := secret.ReadFile(file)
	if err != nil {
		return secret.Text{}, err
	}
	token, err := parseToken(string(b))
	if err != nil {
		return secret.Text{}, fmt.Errorf("%s: %w", file, err)
	}
	return secret.New(token), nil
}

// parseToken finds the token in a file's text. Errors do not repeat the text.
func parseToken(text string) (string, error) {
	text = strings.TrimSpace(text)
	if name, value, ok := strings.Cut(text, ":"); ok && strings.EqualFold(name, "Authorization") {
		scheme, token, ok := strings.Cut(strings.TrimSpace(value), " ")
		if !ok || !strings.EqualFold(scheme, "Bearer") {
			return "", errors.New("want a token, or the line Authorization: Bearer TOKEN")
		}
		text = strings.TrimSpace(token)
	}
	return text, checkToken(text)
}

// checkToken refuses what no header can carry and what is too short.
func checkToken(token string) error {
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("a token is one word of printable ASCII")
		}
	}
	if len(token) < least {
		return fmt.Errorf("a token has at least %d characters: `openssl rand -hex 32` makes one", least)
	}
	return nil
}
