package coordinatortest

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// Unpack puts what a tar file, packed twice, holds into a folder: the data folders of
// earlier builds are kept so, as a log is mostly zeros.
func Unpack(t testing.TB, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	for range 2 {
		if r, err = gzip.NewReader(r); err != nil {
			t.Fatal(err)
		}
	}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var out *os.File
			if out, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
				_, err = io.Copy(out, in)
				out.Close()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
