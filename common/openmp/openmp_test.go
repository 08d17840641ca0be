package openmp

import (
	"os"
	"strings"
	"testing"
)

func TestWaitingFitsTheMachine(t *testing.T) {
	for _, c := range []struct{ pressure, want string }{
		{"some avg10=5.13 avg60=90.04 avg300=17.51 total=8168407536\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "GOMP_SPINCOUNT=100000"},
		{"some avg10=88.00 avg60=1.00 avg300=1.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "OMP_WAIT_POLICY=passive"},
		{"full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", "OMP_WAIT_POLICY=passive"},
		{"some avg10=few avg60=0.00\n", "OMP_WAIT_POLICY=passive"},
		{"", "OMP_WAIT_POLICY=passive"},
	} {
		if got := waiting(c.pressure); got != c.want {
			t.Errorf("%q: %s, want %s", c.pressure, got, c.want)
		}
	}
}

func TestEnvironmentDecidesFirst(t *testing.T) {
	if name, _, ok := strings.Cut(Setting(), "="); os.Getenv("OMP_WAIT_POLICY") == "" && os.Getenv("GOMP_SPINCOUNT") == "" && (!ok || (name != "OMP_WAIT_POLICY" && name != "GOMP_SPINCOUNT")) {
		t.Errorf("without either variable: %q", Setting())
	}
	t.Setenv("GOMP_SPINCOUNT", "7")
	if got := Setting(); got != "" {
		t.Errorf("with GOMP_SPINCOUNT: %q", got)
	}
	if n := count(Environ()); n != 1 {
		t.Errorf("GOMP_SPINCOUNT stands %d times", n)
	}
}

func count(env []string) (n int) {
	for _, e := range env {
		if strings.HasPrefix(e, "GOMP_SPINCOUNT=") {
			n++
		}
	}
	return n
}
