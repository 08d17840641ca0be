package api_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"atelier/coordinator/coordinatortest"
	"atelier/coordinator/coordinatortest/node"
)

// TestDamagedFileIsRefused changes one letter of a sweep's name, and every 97th
// byte, of a saved state: nothing is restored, and the words say why.
func TestDamagedFileIsRefused(t *testing.T) {
	c := node.Start(t, node.Options{})
	sw := c.Create(t, strings.Replace(coordinatortest.Spec(2, 1), "name: test", "name: letters", 1))
	file := c.SaveState(t)
	index := func() uint64 { id, at := c.Machine.View().Restored(); return at + uint64(len(id)) }
	at := bytes.Index(file, []byte("letters"))
	if at < 0 {
		t.Fatal("the sweep's name is not in the file")
	}
	places := []int{at + 2}
	for i := 0; i < len(file); i += 97 {
		places = append(places, i)
	}
	for _, i := range append(places, len(file)-1) {
		bad := bytes.Clone(file)
		bad[i] ^= 0x04
		_, err := c.RestoreState(t, bad)
		coordinatortest.WantCode(t, fmt.Sprint("byte ", i), err, connect.CodeInvalidArgument, "damaged")
	}
	if index() != 0 || c.Machine.View().Staging() != "" {
		t.Error("something was restored or staged")
	}
	// As version 1 wrote it, without a checksum: its form is checked, and it says so.
	bare := file[24 : len(file)-40]
	done, err := c.RestoreState(t, bare)
	if err != nil || !done.NoChecksum || done.Sweeps != 1 {
		t.Errorf("a file without a checksum: %v, %v", done, err)
	}
	if s := c.Sweep(t, sw.Id); s.Name != "letters" {
		t.Errorf("the sweep's name is %q", s.Name)
	}
}
