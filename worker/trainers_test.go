package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"atelier/common/trainerproto"
	"atelier/worker/runner"
)

// Trainers have a network only where the operator allows NCCL, whose library they
// may read then.
func TestTrainersHaveANetworkForNCCL(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "atelier-trainer")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(t.TempDir(), "libnccl.so.2")
	for _, c := range []struct {
		transfer string
		network  bool
	}{{"", false}, {"host", false}, {"nccl", true}, {"auto", true}} {
		t.Setenv(trainerproto.TransferVariable, c.transfer)
		t.Setenv(trainerproto.NCCLVariable, lib)
		list, _, err := trainers(bin, "")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(o runner.Trainer) bool { return o.Name == torchTrainer })
		if i < 0 {
			t.Fatal("no trainer with libtorch")
		}
		if got := list[i]; got.Network != c.network || slices.Contains(got.Read, filepath.Dir(lib)) != c.network {
			t.Errorf("%s=%q: network %t, reads %q", trainerproto.TransferVariable, c.transfer, got.Network, got.Read)
		}
	}
}
