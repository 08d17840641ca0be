package api_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	atelierv1 "atelier/common/proto/atelier/v1"
	"atelier/common/trial"
	"atelier/common/trial/wire"
	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// Relay has a short way for plain protobuf and a long one for the rest; they
// answer alike.
func TestRelayAnswersAlikeOnBothWays(t *testing.T) {
	c := node.Start(t, node.Options{})
	c.Create(t, coordinatortest.Spec(3, 1))
	a := coordinatortest.NewAgent(t, c.API, "w1")
	l := a.Acquire(5 * time.Second)
	url := "http://" + c.Addr + "/atelier.v1.WorkerService/Relay"
	post := func(kind string, body []byte, header ...string) (int, string, []byte) {
		t.Helper()
		req, _ := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		out, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("Content-Type"), out
	}
	stale := coordinatortest.Report(l, 1, 0.5)
	stale.Token++
	msg := &atelierv1.RelayRequest{Worker: "w1", Incarnation: a.Incarnation, Events: []*atelierv1.RunEvent{coordinatortest.Report(l, 1, 0.5), stale}}
	body, _ := proto.Marshal(msg)
	text, _ := protojson.Marshal(msg)

	if r := a.Relay(msg.Events...); wire.Outcome(r[0].Outcome) != trial.OutcomeRecorded || wire.Outcome(r[1].Outcome) != trial.OutcomeFenced {
		t.Fatal(r)
	}
	for name, try := range map[string]func() (int, string, []byte){
		"short": func() (int, string, []byte) { return post("application/proto", body) },
		"long":  func() (int, string, []byte) { return post("application/proto", body, "Connect-Timeout-Ms", "5000") },
		"json":  func() (int, string, []byte) { return post("application/json", text) },
	} {
		code, kind, out := try()
		var r atelierv1.RelayResponse
		var err error
		if name == "json" {
			err = protojson.Unmarshal(out, &r)
		} else {
			err = proto.Unmarshal(out, &r)
		}
		if code != 200 || err != nil || len(r.Results) != 2 || wire.Outcome(r.Results[0].Outcome) != trial.OutcomeAlready ||
			wire.Outcome(r.Results[1].Outcome) != trial.OutcomeFenced || r.Index == 0 {
			t.Errorf("%s: %d %s %v %v", name, code, kind, &r, err)
		}
	}
	for name, bad := range map[string][]byte{"damaged": []byte("\xff\xff\xff"), "cut": body[:len(body)-3]} {
		sc, sk, so := post("application/proto", bad)
		lc, lk, _ := post("application/proto", bad, "Connect-Timeout-Ms", "5000")
		if sc != lc || sk != lk || sc != http.StatusBadRequest || !bytes.Contains(so, []byte(`"invalid_argument"`)) {
			t.Errorf("%s: short %d %s %s, long %d %s", name, sc, sk, so, lc, lk)
		}
	}
	if code, _, out := post("application/proto", nil); code != 200 || len(out) != 0 {
		t.Errorf("empty: %d %q", code, out)
	}
	many := &atelierv1.RelayRequest{Events: make([]*atelierv1.RunEvent, 5000)}
	for i := range many.Events {
		many.Events[i] = coordinatortest.Report(l, int32(i+2), 1)
	}
	_, err := c.Workers.Relay(coordinatortest.Context(t), connect.NewRequest(many))
	coordinatortest.WantCode(t, "too many events", err, connect.CodeInvalidArgument, "5000 events")
}
