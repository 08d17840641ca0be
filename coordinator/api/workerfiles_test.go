package api

import (
	"testing"

	"atelier/common/access"
)

func TestPathsOfWorkerFiles(t *testing.T) {
	for path, want := range map[string][2]string{
		"/worker-files/10.0.0.1:7610/checkpoints/s-1/2/run-3/a.pth": {"10.0.0.1:7610", "/checkpoints/s-1/2/run-3/a.pth"},
		"/worker-files/[::1]:7610/logs/s-1/2/run-1.log":             {"[::1]:7610", "/logs/s-1/2/run-1.log"},
		"/worker-files/h:1/metrics":                                 {},
		"/worker-files/h:1/groups/1/2/3":                            {},
		"/worker-files/h:1/logs/../groups/1/2/3":                    {},
		"/worker-files/h:1/checkpoints//x":                          {},
		"/worker-files/h/checkpoints/x":                             {},
		"/worker-files/:1/checkpoints/x":                            {},
		"/worker-files/u@h:1/checkpoints/x":                         {"u@h:1", "/checkpoints/x"}, // no worker has that address
		"/worker-files/":                                            {},
	} {
		addr, rest, ok := splitWorkerPath(path)
		if ok != (want[0] != "") || ok && (addr != want[0] || rest != want[1]) {
			t.Errorf("%s: %q, %q, %v", path, addr, rest, ok)
		}
	}
}

func TestTrialsReachTheirOwnFiles(t *testing.T) {
	trial := access.Caller{Role: access.Trial, Sweep: "s-1", Trial: 2}
	for path, ok := range map[string]bool{
		"/checkpoints/s-1/2/run-3/a.pth":  true,
		"/logs/s-1/2/run-1.log":           true,
		"/checkpoints/s-1/22/run-3/a.pth": false,
		"/checkpoints/s-2/2/run-3/a.pth":  false,
		"/checkpoints/s-1/2":              false,
	} {
		if err := reaches(trial, path); (err == nil) != ok {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := reaches(access.Caller{Role: access.Viewer}, "/checkpoints/s-2/2/x"); err != nil {
		t.Error(err)
	}
}
