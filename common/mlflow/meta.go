package mlflow

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"atelier/common/files"
)

// A meta.yaml is a flat map. It is written here as PyYAML's safe_dump writes it
// (keys sorted, allow_unicode), so that files made here and by MLflow compare.

// encodeMeta knows strings, int64, nil and empty lists.
func encodeMeta(m map[string]any) []byte {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	for _, k := range keys {
		b.WriteString(k)
		b.WriteString(": ")
		switch v := m[k].(type) {
		case nil:
			b.WriteString("null")
		case int64:
			b.WriteString(strconv.FormatInt(v, 10))
		case string:
			b.WriteString(scalar(v))
		default:
			b.WriteString("[]")
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// scalar writes a string: plain where YAML 1.1 reads it back as that string,
// else in single quotes, else, with characters that need escapes, in double.
func scalar(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r == unicode.ReplacementChar || !unicode.IsPrint(r) }) {
		return double(s)
	}
	if plain(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// double writes a string in double quotes, the only form of YAML with escapes.
func double(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < 0x100 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\x%02X`, r)
		case r < 0x10000 && !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// plain reports whether s needs no quotes. Wherever YAML 1.1 could read something else than a
// string (numbers, dates, booleans) it says no; a quote too many harms nobody.
func plain(s string) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' || s[len(s)-1] == ':' ||
		strings.Contains(s, ": ") || strings.Contains(s, " #") || strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...") {
		return false
	}
	if strings.ContainsRune("!&*,[]{}#|>@`\"'%?-=<", rune(s[0])) && !(s[0] == '-' && len(s) > 1 && s[1] != ' ' && s[1] != '-' && (s[1] < '0' || s[1] > '9') && s[1] != '.') {
		return false
	}
	switch strings.ToLower(s) {
	case "null", "~", "true", "false", "yes", "no", "on", "off", "y", "n":
		return false
	}
	// A number, a time or a date begins like one and has no other letters.
	if strings.ContainsRune("+-.0123456789~", rune(s[0])) {
		return strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsLetter(r) && !strings.ContainsRune("aAbBcCdDeEfFiInNoOtTxXzZ_", r) || r == '/'
		}) || len(s) == 32 && strings.ContainsAny(s, "abcdf") && !strings.HasPrefix(s, "0b") // 32 hexadecimal digits: an id
	}
	return true
}

// maxMeta bounds what is read: no meta.yaml comes near.
const maxMeta = 1 << 20

// decodeMeta reads a flat map; values are strings, int64, nil, or dropped when
// they are of another kind. Files of older and newer MLflows are read alike: what is not known is left out,
// and a number that MLflow once wrote where it now writes a string, or the other way round, is either.
func decodeMeta(b []byte) (map[string]any, error) {
	if len(b) > maxMeta {
		return nil, fmt.Errorf("%d bytes are too many for a meta.yaml", len(b))
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("no map")
	}
	m, c := map[string]any{}, doc.Content[0].Content
	for i := 0; i+1 < len(c); i += 2 {
		if c[i].Kind != yaml.ScalarNode || c[i+1].Kind != yaml.ScalarNode {
			continue
		}
		v := c[i+1]
		switch v.ShortTag() {
		case "!!int":
			if n, err := strconv.ParseInt(v.Value, 10, 64); err == nil {
				m[c[i].Value] = n
			} else {
				m[c[i].Value] = v.Value
			}
		case "!!null":
			m[c[i].Value] = nil
		default:
			m[c[i].Value] = v.Value
		}
	}
	return m, nil
}

// text is a value as a string: ids were numbers once.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// number is a value as an integer; 0 where it is none, which no time and no status is.
func number(v any) int64 { n, _ := v.(int64); return n }

const metaFile = "meta.yaml"

// readMeta reads a folder's meta.yaml; the error wraps fs.ErrNotExist where the folder has none.
func readMeta(dir string) (map[string]any, error) {
	file := filepath.Join(dir, metaFile)
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxMeta {
		return nil, fmt.Errorf("%s: %d bytes are too many for a meta.yaml", file, st.Size())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m, err := decodeMeta(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// writeMeta replaces the file at once: nobody reads half of it.
func writeMeta(dir string, m map[string]any) error {
	return replace(dir, filepath.Join(dir, metaFile), encodeMeta(m))
}

// replace writes a file by way of another in the folder tmp, where MLflow does
// not take it for something.
func replace(tmp, file string, b []byte) error {
	f, err := files.CreateIn(tmp, file, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.CommitUnsynced()
}
