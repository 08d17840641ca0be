// Package version holds the version the programs were built as.
package version

// Version is set by the build from the repository's tag or commit.
var Version = "unversioned"
