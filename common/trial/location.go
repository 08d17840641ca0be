package trial

import (
	"net/url"
	"path/filepath"
	"strings"
)

// Location says where a checkpoint's file lies: "shared:" and a path below the
// folder that all workers share, or the URL of the file on a worker's server.
// Paths have slashes.
type Location string

const sharedPrefix = "shared:"

// FilesPath is what a worker's file server serves its checkpoints below.
const FilesPath = "/checkpoints/"

// SharedAt is the location of a file in the shared folder.
func SharedAt(path string) Location { return Location(sharedPrefix + path) }

// ServedAt is the location of a file that the server at base, "http://host:port",
// serves; path is below its checkpoints' folder.
func ServedAt(base, path string) Location {
	return Location(base + (&url.URL{Path: FilesPath + path}).EscapedPath())
}

// Shared returns the path below the shared folder, as this system writes paths;
// false for a file elsewhere. It may lead out of the folder: open it by a root.
func (l Location) Shared() (string, bool) { return below(string(l), sharedPrefix) }

// Served returns the path below a worker's checkpoints, whichever worker's, as
// this system writes paths; false for a file elsewhere. It may lead out, too.
func (l Location) Served() (string, bool) {
	u, err := url.Parse(string(l))
	if err != nil || !l.Fetchable() {
		return "", false
	}
	return below(u.Path, FilesPath)
}

// Fetchable reports whether the location is a URL that a file server may answer.
func (l Location) Fetchable() bool {
	return strings.HasPrefix(string(l), "http://") || strings.HasPrefix(string(l), "https://")
}

func below(path, root string) (string, bool) {
	rest, ok := strings.CutPrefix(path, root)
	if !ok {
		return "", false
	}
	return filepath.FromSlash(rest), true
}
