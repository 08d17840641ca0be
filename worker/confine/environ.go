package confine

import (
	"strings"

	"atelier/common/trainerproto"
)

// passed are the variables of the agent that reach a trainer; a name that ends
// in * is of all that begin so. All else stays with the agent: tokens of clouds and
// of services come in variables, too. What a trainer needs beyond, its entry in the
// worker's file of trainers sets.
var passed = []string{
	"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TERM",
	"LD_LIBRARY_PATH", "XDG_CACHE_HOME",
	"OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "VECLIB_*", "ONEDNN_*", "DNNL_*", "MALLOC_*",
	"CUDA_*", "NVIDIA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "TORCH_*", "PYTORCH_*", "TF_CPP_*", "TF_ENABLE_*", "TF_FORCE_*", "TF_XLA_*", "XLA_*", "JAX_*",
	"PYTHON*", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV",
	"GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "GORACE", "GOCOVERDIR",
	"ATELIER_KERNELS", trainerproto.TransferVariable, trainerproto.NCCLVariable,
}

// Environ is what of an environment, NAME=VALUE each, a trainer gets. A nil
// Confinement passes everything on.
func (c *Confinement) Environ(env []string) []string {
	if c == nil {
		return env
	}
	var out []string
	for _, kv := range env {
		if name, _, ok := strings.Cut(kv, "="); ok && passes(name) {
			out = append(out, kv)
		}
	}
	return out
}

func passes(name string) bool {
	for _, p := range passed {
		if head, open := strings.CutSuffix(p, "*"); open && strings.HasPrefix(name, head) || name == p {
			return true
		}
	}
	return false
}
