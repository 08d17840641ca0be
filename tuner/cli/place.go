package cli

import (
	"errors"
	"io/fs"
	"os"

	"atelier/common/client"

	ucli "github.com/urfave/cli/v2"
)

// overwriteFlag is of verbs that write one file which a person names.
func overwriteFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "overwrite", Usage: "replace the file if it is there"}
}

// place looks at where a command is to write a file before it does the work. A
// file that is there is replaced where --overwrite says so, or where ours tells
// that an earlier run of the command wrote it; the answer is whether it will be.
func (e *Env) place(c *ucli.Context, path string, ours func() bool) (replaces bool, err error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case st.IsDir():
		return false, usage("%s: %s is a folder: name a file", c.Command.HelpName, e.relative(path))
	case !st.Mode().IsRegular(): // a device would be replaced by a file
		return false, usage("%s: %s is not a regular file: give another", c.Command.HelpName, e.relative(path))
	case !c.Bool("overwrite") && (ours == nil || !ours()):
		return false, usage("%s: %s is there already and was left as it is: name another file, or replace it with --overwrite", c.Command.HelpName, e.relative(path))
	}
	return true, nil
}

// replaced says what place announced, once it is done.
func (e *Env) replaced(c *ucli.Context, path string, replaces bool) {
	if replaces && !c.Bool("quiet") {
		e.say("replaced %s", e.relative(path))
	}
}

// sameFile reports whether a file has these bytes already.
func sameFile(path string, size int64, sum string) bool {
	st, err := os.Stat(path)
	if err != nil || !st.Mode().IsRegular() || st.Size() != size {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return client.Sum{Size: size, SHA256: sum}.Check(f) == nil
}
