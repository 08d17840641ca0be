//go:build libtorch

package main

import "testing"

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
