package atelierv1

// IndexHeader says, on an answer, which raft index it reflects at least.
const IndexHeader = "Atelier-Index"

// SeenHeader says, on a request, which index its client has seen: an answer that
// reflects less would take back what was shown.
const SeenHeader = "Atelier-Seen"
