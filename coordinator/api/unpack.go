package api

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"
)

// errTooLarge ends the unpacking of a message.
var errTooLarge = errors.New("a message has at most 8 MiB when it is unpacked")

// bounded unpacks gzip and stops soon after limit bytes. The library's own
// unpacks whatever is too large to its end, only to say how large it was: some
// hundred milliseconds of a processor for each MiB that anybody sends.
type bounded struct {
	gzip.Reader
	limit, rest int64
}

func newBounded(limit int64) *bounded { return &bounded{limit: limit} }

// Reset implements connect.Decompressor.
func (b *bounded) Reset(r io.Reader) error {
	b.rest = b.limit
	return b.Reader.Reset(r)
}

// Read implements io.Reader; errTooLarge once more than the limit has come out.
func (b *bounded) Read(p []byte) (int, error) {
	if b.rest <= 0 {
		return 0, errTooLarge
	}
	n, err := b.Reader.Read(p[:min(int64(len(p)), b.rest)])
	b.rest -= int64(n)
	return n, err
}

// gzipped is gzip for handlers, in both directions.
func gzipped() connect.HandlerOption {
	return connect.WithCompression("gzip",
		// A byte more than is allowed has to be seen.
		func() connect.Decompressor { return newBounded(maxRequest + 1) },
		func() connect.Compressor { return gzip.NewWriter(io.Discard) })
}

// limited bounds what is read of a request that is no stream, as it comes, packed or not. The KiB above is for
// connect's own framing, so that the message's limit is the one that is told.
func limited(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !streams(r) {
			r.Body = http.MaxBytesReader(w, r.Body, maxRequest+1<<10)
		}
		h.ServeHTTP(w, r)
	})
}
