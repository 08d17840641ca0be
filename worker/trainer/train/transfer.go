//go:build libtorch

package train

import (
	"fmt"
	"os"

	"atelier/common/trainerproto"
	"atelier/worker/trainer/group"
	"atelier/worker/trainer/torchx"
)

// Variables of the environment in which an operator allows a trainer to move sums
// between GPUs: host, nccl, or auto (NCCL where it can be used); and the library's
// file, where it is not on the loader's path.
const (
	transferVariable = "ATELIER_GROUP_TRANSFER"
	ncclVariable     = "ATELIER_NCCL"
)

// mover moves the group's sums between GPUs, where the operator allows it: NCCL
// opens sockets of its own. nil: they go through the host's memory.
func (r *run) mover() (group.Mover, error) {
	how := os.Getenv(transferVariable)
	switch how {
	case "", "host":
		return nil, nil
	case "nccl", "auto":
	default:
		return nil, badSpec("environment variable %s: %q is not host, nccl or auto", transferVariable, how)
	}
	identity, err := torchx.Identity(r.device)
	if err == nil {
		var n *torchx.NCCL
		if n, err = torchx.OpenNCCL(os.Getenv(ncclVariable), r.device, identity); err == nil {
			r.log.Info("sums may be moved between GPUs", "by", n.Kind(), "library", n.Path(), "device", identity)
			return n, nil
		}
	}
	if how == "auto" {
		r.log.Info("sums go through the host's memory", "reason", err)
		return nil, nil
	}
	return nil, &Failure{trainerproto.FailedDeviceFault, fmt.Errorf("%s=nccl: %w", transferVariable, err)}
}
