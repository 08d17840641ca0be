package api

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	atelierv1 "atelier/common/proto/atelier/v1"
)

// relay is the short way for Relay, the call that carries all results: a plain
// protobuf request in connect's unary form, which is what the Go client sends,
// is read and answered here with few allocations and no reflection over codecs.
// Everything else (JSON, packed bodies, GET, other protocols) goes the long way
// through connect. Both speak the same protocol; the tests call both.
func (s *Server) relay(long http.Handler) http.Handler {
	h := workers{s}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A timeout of the caller's own, a packed body, an unknown length: connect knows what to do
		// with them.
		if r.Method != http.MethodPost || !is(r.Header, "Content-Type", "application/proto") || r.Header["Content-Encoding"] != nil ||
			r.Header["Connect-Timeout-Ms"] != nil || r.ContentLength < 0 || r.ContentLength > maxRequest {
			long.ServeHTTP(w, r)
			return
		}
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		body, err := readBody(r, *buf)
		*buf = body
		var req atelierv1.RelayRequest
		if err == nil {
			err = proto.Unmarshal(body, &req)
		}
		if err != nil {
			s.refuse(w, r, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("read the request: %w", err)))
			return
		}
		if err := s.within(callerOf(r.Context()), &req); err != nil {
			s.Refused(callerOf(r.Context()).String(), "Relay", connectMessage(err))
			errWriter.Write(w, r, err)
			return
		}
		resp, err := h.record(r.Context(), &req)
		if err != nil {
			errWriter.Write(w, r, err)
			return
		}
		if body, err = (proto.MarshalOptions{}).MarshalAppend(body[:0], resp); err != nil {
			s.refuse(w, r, connect.NewError(connect.CodeInternal, err))
			return
		}
		*buf = body
		header := w.Header()
		header["Content-Type"] = protoType
		header["Content-Length"] = []string{strconv.Itoa(len(body))}
		w.Write(body)
	})
}

// protoType is shared by all answers; nobody writes to it.
var protoType = []string{"application/proto"}

// buffers holds bodies of requests and answers for reuse.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

// is reports whether a header has exactly this one value, without the allocations of Get.
func is(h http.Header, name, value string) bool {
	v := h[name]
	return len(v) == 1 && v[0] == value
}

// readBody reads a body of known length into buf, grown where needed.
func readBody(r *http.Request, buf []byte) ([]byte, error) {
	n := int(r.ContentLength)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r.Body, buf)
	return buf, err
}
