package trainerproto

// Variables of the environment in which an operator allows trainers to move the
// sums of a group between GPUs: host (the default), nccl, or auto (NCCL where it
// can be used); and the library's file, where it is not on the loader's path.
const (
	TransferVariable = "ATELIER_GROUP_TRANSFER"
	NCCLVariable     = "ATELIER_NCCL"
)

// MayUseNCCL reports whether that value of TransferVariable allows NCCL, which
// opens sockets of its own.
func MayUseNCCL(transfer string) bool { return transfer == "nccl" || transfer == "auto" }
