package atelierv1

// RemovedHeader marks the refusal of a coordinator that was taken off its
// cluster: asking again changes nothing.
const RemovedHeader = "Atelier-Removed"
