package confine

import (
	"encoding/json"
	"testing"
)

// A launcher takes a plan or an error from any argument.
func FuzzReadPlan(f *testing.F) {
	whole, err := json.Marshal(plan{Command: []string{"/bin/true", "-x"}, Agent: 7, FileBytes: 1 << 30, User: &account{Name: "a", UID: 1, GID: 2, Groups: []int{3}},
		Landlock: true, Run: []string{"/usr"}, Read: []string{"/proc"}, Write: []string{"/tmp"}, Devices: []string{"/dev/null"}})
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(whole), "", "{}", `{"Command":[""],"Agent":1}`, `{"Command":["a"],"Agent":-1}`, "[[[["} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := readPlan(s)
		if err == nil && (len(p.Command) == 0 || p.Agent < 1) {
			t.Errorf("%q is taken for %+v", s, p)
		}
	})
}
