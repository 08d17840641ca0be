package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The safetensors form is eight bytes that give a header's length, the header (a JSON object: a tensor's name ->
// dtype, shape and where its bytes lie), and the bytes.
const (
	headerAt         = 8
	maxHeader        = 100_000_000 // the format's own limit
	metadataKey      = "__metadata__"
	safetensorsAlign = 8 // the bytes start at a multiple of it
)

var safetensorsNames = map[DType]string{
	F32: "F32", F64: "F64", F16: "F16", BF16: "BF16", I8: "I8", I16: "I16", I32: "I32", I64: "I64", U8: "U8", Bool: "BOOL",
}

// WriteSafetensors writes tensors in the safetensors form. The header keeps their order (and has the metadata's
// keys sorted); the bytes stand by size of element, the largest first, so that each tensor is aligned. Tensors
// that share memory are written once each: the form knows no sharing.
func WriteSafetensors(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	header, order, err := safetensorsHeader(tensors, metadata)
	if err != nil {
		return fmt.Errorf("write safetensors: %w", err)
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))); err != nil {
		return fmt.Errorf("write safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("write safetensors: %w", err)
	}
	for _, i := range order {
		if _, err := w.Write(tensors[i].Data); err != nil {
			return fmt.Errorf("write safetensors: tensor %q: %w", tensors[i].Name, err)
		}
	}
	return nil
}

// SaveSafetensors writes tensors to path as Save does: whole and synced, or not at all.
func SaveSafetensors(path string, tensors []Tensor, metadata map[string]string) (Info, error) {
	return SaveAs(path, func(w io.Writer) error { return WriteSafetensors(w, tensors, metadata) })
}

// safetensorsHeader makes the header, and the order in which the tensors' bytes follow it.
func safetensorsHeader(tensors []Tensor, metadata map[string]string) (header []byte, order []int, err error) {
	seen := make(map[string]bool, len(tensors))
	for i := range tensors {
		t := &tensors[i]
		switch {
		case t.Name == metadataKey:
			return nil, nil, fmt.Errorf("a tensor cannot be called %q", t.Name)
		case !utf8.ValidString(t.Name):
			return nil, nil, fmt.Errorf("tensor name %q is not UTF-8", t.Name)
		case seen[t.Name]:
			return nil, nil, fmt.Errorf("tensor %q appears twice", t.Name)
		}
		if err := t.check(); err != nil {
			return nil, nil, fmt.Errorf("%q: %w", t.Name, err)
		}
		seen[t.Name] = true
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(tensors[b].DType.Size(), tensors[a].DType.Size()) })
	starts, at := make([]int64, len(tensors)), int64(0)
	for _, i := range order {
		starts[i] = at
		at += int64(len(tensors[i].Data))
	}

	b := []byte{'{'}
	if len(metadata) > 0 {
		b = append(appendJSON(b, metadataKey), ":{"...)
		for i, key := range slices.Sorted(maps.Keys(metadata)) {
			if !utf8.ValidString(key) || !utf8.ValidString(metadata[key]) {
				return nil, nil, fmt.Errorf("metadata %q is not UTF-8", key)
			}
			if i > 0 {
				b = append(b, ',')
			}
			b = appendJSON(append(appendJSON(b, key), ':'), metadata[key])
		}
		b = append(b, '}')
	}
	for i := range tensors {
		t := &tensors[i]
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(appendJSON(b, t.Name), `:{"dtype":"`+safetensorsNames[t.DType]+`","shape":[`...)
		for j, d := range t.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = fmt.Appendf(b, `],"data_offsets":[%d,%d]}`, starts[i], starts[i]+int64(len(t.Data)))
	}
	b = append(b, '}')
	for (headerAt+len(b))%safetensorsAlign != 0 {
		b = append(b, ' ')
	}
	if len(b) > maxHeader {
		return nil, nil, fmt.Errorf("the header needs %d bytes, the format takes %d: fewer tensors, shorter names or less metadata", len(b), maxHeader)
	}
	return b, order, nil
}

func appendJSON(b []byte, s string) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string into memory: cannot fail
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// ReadSafetensors reads a file in the safetensors form: its tensors in the header's order, and its metadata.
func ReadSafetensors(r io.ReaderAt, size int64) ([]Tensor, map[string]string, error) {
	tensors, metadata, err := readSafetensors(size, reading{r, size})
	if err != nil {
		return nil, nil, fmt.Errorf("read safetensors: %w", err)
	}
	return tensors, metadata, nil
}

// looksLikeSafetensors reports whether a file has that form by its first nine bytes: a length that can be, and a
// brace. Neither a zip archive nor a pickle can begin so.
func looksLikeSafetensors(head []byte) bool {
	return len(head) > headerAt && binary.LittleEndian.Uint64(head) <= maxHeader && head[headerAt] == '{'
}

func readSafetensors(size int64, src bytesAt) ([]Tensor, map[string]string, error) {
	head, err := src.bytesAt(0, headerAt)
	if err != nil {
		return nil, nil, err
	}
	n := binary.LittleEndian.Uint64(head)
	if n > maxHeader {
		return nil, nil, fmt.Errorf("%w: a header of %d bytes, at most %d are taken: not a safetensors file?", ErrRefused, n, maxHeader)
	}
	header, err := src.bytesAt(headerAt, int64(n))
	if err != nil {
		return nil, nil, fmt.Errorf("header of %d bytes: %w", n, err)
	}
	parts, metadata, err := parseSafetensors(header)
	if err != nil {
		return nil, nil, fmt.Errorf("header: %w", err)
	}
	start := headerAt + int64(n)
	if err := checkLayout(parts, size-start); err != nil {
		return nil, nil, err
	}
	tensors := make([]Tensor, len(parts))
	for i, p := range parts {
		tensors[i] = Tensor{Name: p.name, DType: p.dtype, Shape: p.shape}
		if p.end == p.begin {
			continue
		}
		if tensors[i].Data, err = src.bytesAt(start+p.begin, p.end-p.begin); err != nil {
			return nil, nil, fmt.Errorf("tensor %q: %w", p.name, err)
		}
	}
	return tensors, metadata, nil
}

// part is what the header says of a tensor; begin and end count from the header's end.
type part struct {
	name       string
	dtype      DType
	shape      []int64
	begin, end int64
}

// checkLayout holds what a header says against itself and against the bytes there are: each tensor has the size
// of its shape, and all of them cover the rest of the file, each byte once.
func checkLayout(parts []part, total int64) error {
	order := make([]int, len(parts))
	for i, p := range parts {
		order[i] = i
		n, err := numel(p.shape)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", p.name, err)
		}
		if p.begin < 0 || p.end < p.begin || p.end > total {
			return fmt.Errorf("tensor %q: bytes %d to %d lie outside the file's %d bytes of data (cut off while it was written or copied?)", p.name, p.begin, p.end, total)
		}
		if want := n * int64(p.dtype.Size()); want != p.end-p.begin {
			return fmt.Errorf("tensor %q: shape %v and type %v need %d bytes, the header gives it %d", p.name, p.shape, p.dtype, want, p.end-p.begin)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(parts[a].begin, parts[b].begin), cmp.Compare(parts[a].end, parts[b].end))
	})
	at := int64(0)
	for _, i := range order {
		switch p := parts[i]; {
		case p.begin < at:
			return fmt.Errorf("tensor %q: its bytes overlap another tensor's", p.name)
		case p.begin > at:
			return fmt.Errorf("bytes %d to %d before tensor %q belong to no tensor", at, p.begin, p.name)
		default:
			at = p.end
		}
	}
	if at != total {
		return fmt.Errorf("the last %d bytes belong to no tensor", total-at)
	}
	return nil
}

// headerReader reads the header token by token: only what the form knows is taken, so nothing can be nested.
type headerReader struct{ *json.Decoder }

func parseSafetensors(header []byte) ([]part, map[string]string, error) {
	if !utf8.Valid(header) {
		return nil, nil, errors.New("is not UTF-8")
	}
	if len(header) == 0 || header[0] != '{' {
		return nil, nil, errors.New("does not begin with a brace: not a safetensors file")
	}
	r := headerReader{json.NewDecoder(bytes.NewReader(header))}
	r.UseNumber()
	var parts []part
	var metadata map[string]string
	seen := map[string]bool{}
	err := r.object(func(key string) error {
		if seen[key] {
			return fmt.Errorf("%q appears twice", key)
		}
		if len(seen) == maxEntries {
			return fmt.Errorf("%w: more than %d tensors", ErrRefused, maxEntries)
		}
		seen[key] = true
		if key == metadataKey {
			var err error
			metadata, err = r.metadata()
			return err
		}
		p, err := r.part()
		if err != nil {
			return fmt.Errorf("tensor %q: %w", key, err)
		}
		p.name = key
		parts = append(parts, p)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.Trim(header[r.InputOffset():], " \t\r\n")) > 0 {
		return nil, nil, errors.New("continues after its end")
	}
	return parts, metadata, nil
}

func (r headerReader) metadata() (map[string]string, error) {
	m := map[string]string{}
	return m, r.object(func(key string) error {
		if _, twice := m[key]; twice {
			return fmt.Errorf("metadata %q appears twice", key)
		}
		if len(m) == maxEntries {
			return fmt.Errorf("%w: more than %d entries of metadata", ErrRefused, maxEntries)
		}
		var err error
		m[key], err = r.text()
		return err
	})
}

func (r headerReader) part() (p part, err error) {
	seen := map[string]bool{}
	err = r.object(func(key string) error {
		if seen[key] {
			return fmt.Errorf("%s appears twice", key)
		}
		seen[key] = true
		switch key {
		case "dtype":
			name, err := r.text()
			if err != nil {
				return err
			}
			for t, known := range safetensorsNames {
				if known == name {
					p.dtype = t
				}
			}
			if p.dtype == 0 {
				return fmt.Errorf("%w: type %q", ErrRefused, name)
			}
		case "shape":
			p.shape, err = r.integers(maxDims)
			return err
		case "data_offsets":
			at, err := r.integers(2)
			if err != nil {
				return err
			}
			if len(at) != 2 {
				return fmt.Errorf("data_offsets has %d numbers, not 2", len(at))
			}
			p.begin, p.end = at[0], at[1]
		default:
			return fmt.Errorf("%w: unknown key %q", ErrRefused, key)
		}
		return nil
	})
	if err != nil {
		return p, err
	}
	for _, key := range []string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return p, fmt.Errorf("%s is missing", key)
		}
	}
	return p, nil
}

// object reads an object; value reads the value of each key.
func (r headerReader) object(value func(key string) error) error {
	if err := r.delim('{'); err != nil {
		return err
	}
	for r.More() {
		key, err := r.text()
		if err != nil {
			return err
		}
		if err := value(key); err != nil {
			return err
		}
	}
	return r.delim('}')
}

func (r headerReader) delim(want json.Delim) error {
	t, err := r.token()
	if err == nil && t != want {
		err = fmt.Errorf("found %v where %v is expected", t, want)
	}
	return err
}

func (r headerReader) text() (string, error) {
	t, err := r.token()
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("found %v where a string is expected", t)
	}
	return s, nil
}

// integers reads a list of at most most whole numbers that are not negative.
func (r headerReader) integers(most int) ([]int64, error) {
	if err := r.delim('['); err != nil {
		return nil, err
	}
	var out []int64
	for r.More() {
		t, err := r.token()
		if err != nil {
			return nil, err
		}
		text, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("found %v where a number is expected", t)
		}
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%.40s is not a size: want a whole number from 0 to 2^63-1", text)
		}
		if len(out) == most {
			return nil, fmt.Errorf("a list of more than %d numbers", most)
		}
		out = append(out, n)
	}
	return out, r.delim(']')
}

func (r headerReader) token() (json.Token, error) {
	t, err := r.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("is not valid JSON: %w", err)
	}
	return t, nil
}
