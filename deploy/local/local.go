// Package local is common/local by the name that tests, benchmarks and
// `make run` know it by: a whole cluster on this machine as real processes.
package local

import "atelier/common/local"

// The nouns of common/local.
type (
	Config  = local.Config
	Cluster = local.Cluster
	Process = local.Process
)

// StopGrace is how long a process has between SIGTERM and SIGKILL.
const StopGrace = local.StopGrace

// Start and StartRedis start a cluster, and a Redis alone.
var (
	Start      = local.Start
	StartRedis = local.StartRedis
)
