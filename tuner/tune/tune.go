// Package tune is what `atelier tune` does: it turns a configuration into a
// sweep, runs it on a cluster or on this machine, and writes the report.
//
// It refuses what a spec says better (several objectives, population-based
// training). It prints nothing: a Watcher is shown how it goes.
package tune
