package atelierv1

// RemovedHeader marks the refusal of a coordinator that was taken off its
// cluster: asking again changes nothing.
const RemovedHeader = "Atelier-Removed"

// ClusterHeader names, on a refusal, the cluster that refuses. An address may
// have gone to another cluster, whose word does not count.
const ClusterHeader = "Atelier-Cluster"
