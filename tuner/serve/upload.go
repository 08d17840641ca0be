package serve

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path"
	"strings"

	"atelier/common/dataset"
)

// A form adds its own lines to an image. What a file is can be seen in its first bytes.
const (
	formBytes    = 1 << 16
	kindBytes    = 512
	firstPiece   = 1 << 16
	largestPiece = 1 << 20
)

// refusal is why an upload is not shown to the model.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refused(status int, format string, a ...any) error {
	return &refusal{status, fmt.Sprintf(format, a...)}
}

// upload reads the request's image, whether it is the body or a form's field. What is no image is refused by
// its first bytes, and the rest is not read. Its errors are refusals.
func (s *Server) upload(r *http.Request) (name string, b []byte, err error) {
	name, in, err := image(r)
	if err == nil {
		first := bufio.NewReaderSize(in, kindBytes)
		head, _ := first.Peek(kindBytes) // an error comes again
		if len(head) > 0 {
			if err := s.kind(name, head); err != nil {
				return name, nil, err
			}
		}
		b, err = read(first, s.limits.Bytes)
	}
	if err == nil && len(b) == 0 {
		err = errors.New("the request has no image")
	}
	var large *http.MaxBytesError
	var why *refusal
	switch {
	case errors.As(err, &large):
		err = refused(http.StatusRequestEntityTooLarge, "the image is larger than %d MB", s.limits.Bytes>>20)
	case err != nil && !errors.As(err, &why):
		err = refused(http.StatusBadRequest, "%s", err)
	}
	return name, b, err
}

// image finds where the image begins in a request, and what it is called.
func image(r *http.Request) (name string, in io.Reader, err error) {
	name = "the image"
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "multipart/form-data" {
		return name, r.Body, nil
	}
	parts, err := r.MultipartReader()
	if err != nil {
		return name, nil, err
	}
	for {
		var part *multipart.Part
		part, err = parts.NextPart()
		if errors.Is(err, io.EOF) {
			return name, nil, errors.New("the form has no field \"image\"")
		}
		if err != nil {
			return name, nil, err
		}
		if part.FormName() == "image" {
			if n := path.Base(strings.ReplaceAll(part.FileName(), `\`, "/")); part.FileName() != "" {
				name = n
			}
			return name, part, nil
		}
	}
}

// read reads at most limit bytes. A body without an end costs its limit once: pieces are put together only when all
// have come.
func read(in io.Reader, limit int64) ([]byte, error) {
	var pieces [][]byte
	total := int64(0)
	for size := firstPiece; ; size = min(2*size, largestPiece) {
		piece := make([]byte, size)
		n, err := io.ReadFull(in, piece)
		pieces = append(pieces, piece[:n])
		if total += int64(n); total > limit {
			return nil, &http.MaxBytesError{Limit: limit}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return joined(pieces, total), nil
		case err != nil:
			return nil, err
		}
	}
}

func joined(pieces [][]byte, total int64) []byte {
	if len(pieces[0]) == int(total) {
		return pieces[0]
	}
	all := make([]byte, 0, total)
	for _, p := range pieces {
		all = append(all, p...)
	}
	return all
}

// kind refuses what its first bytes show to be no image.
func (s *Server) kind(name string, head []byte) error {
	if dataset.Format(head) != "" {
		return nil
	}
	what := "file of an unknown kind"
	if kind := http.DetectContentType(head); strings.HasPrefix(kind, "text/") {
		what = "text file"
	} else if kind != "application/octet-stream" {
		what = kind + " file"
	}
	return refused(http.StatusUnsupportedMediaType, "%s is a %s: send a PNG, JPEG, GIF, WebP, BMP or TIFF image", name, what)
}

// check looks at an image's first bytes only: nothing is decoded before its
// size is known to be sane. What `atelier infer` decodes is taken here.
func (s *Server) check(name string, b []byte) error {
	width, height, format, err := dataset.Header(b)
	if err != nil {
		return refused(http.StatusUnprocessableEntity, "%s begins as a %s but cannot be read: %s", name, strings.ToUpper(format), strings.TrimPrefix(err.Error(), format+": "))
	}
	if pixels := int64(width) * int64(height); pixels > s.limits.Pixels {
		return refused(http.StatusRequestEntityTooLarge, "%s claims %d x %d pixels; up to %d million are read", name, width, height, s.limits.Pixels/1_000_000)
	}
	return nil
}
