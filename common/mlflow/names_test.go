package mlflow_test

import (
	"slices"
	"strings"
	"testing"

	"atelier/common/mlflow"
)

func TestNames(t *testing.T) {
	all := []string{"opt", "opt/lr", "x=y", "x,y", "x_y", "a/b", "a/c", "plain", "e\x1b[31mred", strings.Repeat("k", 300), strings.Repeat("k", 299)}
	want := mlflow.Names(all)
	for name, key := range want {
		if err := mlflow.CheckKey("parameter", key); err != nil {
			t.Error(err)
		}
		for other, k := range want {
			if other != name && (k == key || strings.HasPrefix(k, key+"/")) {
				t.Errorf("%q is %q and %q is %q", name, key, other, k)
			}
		}
	}
	for _, same := range []string{"opt", "x_y", "a/b", "a/c", "plain"} {
		if want[same] != same {
			t.Errorf("%q is called %q", same, want[same])
		}
	}
	slices.Reverse(all)
	for name, key := range mlflow.Names(all) {
		if want[name] != key {
			t.Errorf("%q is %q or %q, by the order", name, key, want[name])
		}
	}
}
