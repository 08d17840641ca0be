package gossip

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"atelier/common/secret"
)

// ReadKey reads a key from a file: 16, 24 or 32 bytes, raw or in hexadecimal or
// base64: one key, as Config takes it. It is nil without a file. One that others can read is refused.
func ReadKey(file string) ([][]byte, error) {
	if file == "" {
		return nil, nil
	}
	b, err := secret.ReadFile(file)
	if err != nil {
		return nil, err
	}
	ok := func(b []byte) bool { return len(b) == 16 || len(b) == 24 || len(b) == 32 }
	text := strings.TrimSpace(string(b))
	for _, decode := range []func(string) ([]byte, error){hex.DecodeString, base64.StdEncoding.DecodeString} {
		if k, err := decode(text); err == nil && ok(k) {
			return [][]byte{k}, nil
		}
	}
	for _, raw := range [][]byte{b, []byte(text)} {
		if ok(raw) {
			return [][]byte{raw}, nil
		}
	}
	return nil, fmt.Errorf("%s: want 16, 24 or 32 bytes, raw or in hex or base64; `openssl rand -base64 32` makes one", file)
}
