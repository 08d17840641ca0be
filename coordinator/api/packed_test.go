package api_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// A packed request is unpacked up to what a message may have and no further: the
// answer does not know how large it would have become.
func TestPackedRequestsAreBounded(t *testing.T) {
	n := node.Start(t, node.Options{})
	sw := n.Create(t, coordinatortest.Spec(1, 1))
	packed := func(text io.Reader) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		io.Copy(z, text)
		z.Close()
		return b.Bytes()
	}
	post := func(method, kind string, body []byte) (int, string) {
		t.Helper()
		req, err := http.NewRequest("POST", "http://"+n.Addr+"/atelier.v1."+method, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set("Connect-Protocol-Version", "1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	for _, c := range []struct{ method, kind string }{
		{"SweepService/GetSweep", "application/json"},
		{"SweepService/GetSweep", "application/proto"},
		{"WorkerService/Relay", "application/proto"},
		{"ClusterService/GetNode", "application/json"},
	} {
		code, text := post(c.method, c.kind, packed(io.LimitReader(zeros{}, 32<<20)))
		if code != http.StatusTooManyRequests || !strings.Contains(text, "resource_exhausted") || strings.Contains(text, "33554432") {
			t.Errorf("%s, %s: %d, %s", c.method, c.kind, code, text)
		}
	}
	// One of the usual size is answered.
	if code, text := post("SweepService/GetSweep", "application/json", packed(strings.NewReader(`{"id":"`+sw.Id+`"}`))); code != http.StatusOK || !strings.Contains(text, sw.Id) {
		t.Errorf("a packed request: %d, %s", code, text)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }
