//go:build libtorch

package train

import (
	"fmt"
	"os"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/torchx"
)

// mover moves the group's sums between GPUs, where the operator allows it: NCCL
// opens sockets of its own. nil: they go through the host's memory.
func (r *run) mover() (group.Mover, error) {
	how := os.Getenv(trainerproto.TransferVariable)
	switch {
	case how == "" || how == "host":
		return nil, nil
	case !trainerproto.MayUseNCCL(how):
		return nil, badSpec("environment variable %s: %q is not host, nccl or auto", trainerproto.TransferVariable, how)
	}
	identity, err := torchx.Identity(r.device)
	if err == nil {
		var n *torchx.NCCL
		if n, err = torchx.OpenNCCL(os.Getenv(trainerproto.NCCLVariable), r.device, identity); err == nil {
			r.log.Info("sums may be moved between GPUs", "by", n.Kind(), "library", n.Path(), "device", identity)
			return n, nil
		}
	}
	if how == "auto" {
		r.log.Info("sums go through the host's memory", "reason", err)
		return nil, nil
	}
	return nil, &Failure{trainerproto.FailedDeviceFault, fmt.Errorf("%s=nccl: %w", trainerproto.TransferVariable, err)}
}
