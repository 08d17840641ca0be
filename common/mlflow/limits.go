package mlflow

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What MLflow takes (mlflow/utils/validation.py); characters, not bytes.
const (
	maxKey        = 250
	maxParam      = 6000
	maxTag        = 5000
	maxExperiment = 500

	// Of one runs/log-batch.
	maxBatchMetrics = 1000
	maxBatchParams  = 100
	maxBatchTags    = 100
	maxBatchAll     = 1000
	maxBatchBytes   = 1_000_000
)

// keyRune reports whether a name may have the character; MLflow asks Python's \w, which takes
// letters and digits of every script.
func keyRune(r rune) bool {
	return r == '/' || r == '_' || r == '.' || r == '-' || r == ' ' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

// CheckKey reports whether MLflow takes key as the name of a metric, a parameter
// or a tag; what is the word for it in the message. A file store makes a file of the name, which is why it
// has to be its own normalised path, on a server too.
func CheckKey(what, key string) error {
	switch {
	case key == "":
		return fmt.Errorf("MLflow: a %s needs a name", what)
	case !utf8.ValidString(key):
		return fmt.Errorf("MLflow: %s %q: the name is not UTF-8", what, key)
	case strings.ContainsFunc(key, func(r rune) bool { return !keyRune(r) }):
		return fmt.Errorf("MLflow: %s %q: a name may have letters, digits, _ - . / and spaces", what, key)
	case path.Clean(key) != key || key == "." || key[0] == '/' || strings.HasPrefix(key, ".."):
		return fmt.Errorf("MLflow: %s %q: as a path this is %q; names must be the same as paths", what, key, path.Clean(key))
	case utf8.RuneCountInString(key) > maxKey:
		return fmt.Errorf("MLflow: %s %q: the name has %d characters, at most %d are taken", what, cut(key, 40), utf8.RuneCountInString(key), maxKey)
	}
	return nil
}

// Key makes a name that MLflow takes out of any text: what it does not take
// becomes "_", what is too long is cut.
func Key(text string) string {
	k := strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !keyRune(r) {
			return '_'
		}
		return r
	}, text)
	k = cut(strings.TrimLeft(path.Clean("/"+k), "/"), maxKey)
	if strings.HasPrefix(k, "..") {
		k = "_" + k
	}
	if k = strings.TrimRight(k, "/"); k == "" || k == "." {
		return "_"
	}
	return cut(k, maxKey)
}

// Names gives each of some names that are used together (all parameters, or all
// metrics, of runs that are compared) a name that MLflow takes and no other of
// them has: where Key makes two alike, or one would be a file and the other a
// folder of that name, a digest is put behind. It depends on the set alone, not
// on its order.
func Names(all []string) map[string]string {
	all = slices.Compact(slices.Sorted(slices.Values(all)))
	count := map[string]int{}
	for _, name := range all {
		count[Key(name)]++
	}
	out := make(map[string]string, len(all))
	for _, name := range all {
		key := Key(name)
		long := false
		for at, r := range key {
			long = long || r == '/' && count[key[:at]] > 0
		}
		if long {
			key = strings.ReplaceAll(key, "/", "_")
		}
		if long || count[Key(name)] > 1 && key != name {
			key = fmt.Sprintf("%s-%x", cut(key, maxKey-9), sha256.Sum256([]byte(name)))
			key = key[:len(key)-56] // 4 bytes of it
		}
		out[name] = key
	}
	return out
}

// cut keeps the first n characters, as MLflow counts them: a limit in bytes would split one.
func cut(s string, n int) string {
	i := 0
	for at := range s {
		if i == n {
			return s[:at]
		}
		i++
	}
	return s
}

// checkExperiment refuses a name that MLflow would; unlike keys it may hold any character.
func checkExperiment(name string) error {
	if strings.TrimSpace(name) == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxExperiment {
		return fmt.Errorf("MLflow: experiment %q: give a name of 1 to %d characters", cut(name, 40), maxExperiment)
	}
	return nil
}
