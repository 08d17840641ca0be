package confine

import (
	"bufio"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Folders of a Linux system. Those that a machine does not have are left out.
var (
	// systemRun are programs and libraries.
	systemRun = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store", "/run/current-system", "/run/opengl-driver"}

	// systemRead is what libraries look up. /proc is the kernel's: Landlock itself keeps
	// a process from the environment and memory of those outside. Of /etc there are the
	// files by name; keys and passwords of services lie beside them.
	systemRead = append([]string{"/proc", "/sys"}, below("/etc",
		"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "localtime", "timezone", "locale.alias", "locale.conf",
		"passwd", "group", "nsswitch.conf", "hosts", "host.conf", "resolv.conf", "gai.conf", "services", "protocols",
		"ssl/certs", "ssl/openssl.cnf", "ca-certificates", "pki/tls/certs", "pki/ca-trust", "crypto-policies",
		"alternatives", "fonts", "mime.types", "magic", "os-release", "debian_version", "python3", "OpenCL", "vulkan", "nvidia", "nvidia-container-runtime")...)

	// plainDevices give no access to anything.
	plainDevices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
)

func below(dir string, names ...string) (list []string) {
	for _, n := range names {
		list = append(list, filepath.Join(dir, n))
	}
	return list
}

// deviceFiles are the harmless ones, GPUs, and the folder through which processes
// share one.
func deviceFiles() []string {
	list := slices.Clone(plainDevices)
	for _, pattern := range []string{"/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap"} {
		found, _ := filepath.Glob(pattern) // the pattern is well formed
		list = append(list, found...)
	}
	mps := os.Getenv("CUDA_MPS_PIPE_DIRECTORY")
	if mps == "" {
		mps = "/tmp/nvidia-mps"
	}
	return append(list, mps)
}

// mostLibraries bounds how many files are looked at for where their libraries lie.
const mostLibraries = 256

// programFolders are the files and folders that a command needs to run: the
// program, its interpreter, the libraries that it names, the installation of Python
// that it belongs to, and what its arguments name. A folder that is too wide is
// left out, of a file then the file alone.
func (c *Confinement) programFolders(p Program) []string {
	var list []string
	add := func(path string) {
		if path != "" && filepath.IsAbs(path) && !slices.Contains(list, path) {
			list = append(list, path)
		}
	}
	addDir := func(dir string) {
		if !c.tooWide(dir) {
			add(filepath.Clean(dir))
		}
	}
	libraries := 0
	var program func(path string, depth int)
	program = func(path string, depth int) {
		if found, err := exec.LookPath(path); err == nil {
			path = found
		}
		path, err := filepath.Abs(path)
		if err != nil || depth > 4 {
			return
		}
		add(path)
		prefix(path, addDir)
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			add(real)
			prefix(real, addDir)
			path = real
		}
		if words := shebang(path); len(words) > 0 {
			for _, w := range words { // #!/usr/bin/env python3 has two
				program(w, depth+1)
			}
			return
		}
		c.libraries(path, addDir, &libraries)
	}
	program(p.Command[0], 0)
	for _, arg := range p.Command[1:] {
		path, err := filepath.Abs(arg)
		if err != nil {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			addDir(path)
		default:
			add(path)
			addDir(filepath.Dir(path)) // what a script imports
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("LD_LIBRARY_PATH")) {
		addDir(dir)
	}
	return list
}

// prefix finds the installation of Python or conda that a program of its bin
// folder needs.
func prefix(program string, add func(string)) {
	bin := filepath.Dir(program)
	top := filepath.Dir(bin)
	switch filepath.Base(bin) {
	case "bin":
	case "shims": // pyenv, asdf and their like: scripts that start what lies beside them
		for _, name := range []string{"versions", "installs"} {
			if _, err := os.Stat(filepath.Join(top, name)); err == nil {
				add(top)
			}
		}
		return
	default:
		return
	}
	found, _ := filepath.Glob(filepath.Join(top, "lib", "python3*")) // the pattern is well formed
	if b, err := os.ReadFile(filepath.Join(top, "pyvenv.cfg")); err == nil {
		add(top)
		for line := range strings.Lines(string(b)) { // the installation that it was made of
			if k, v, ok := strings.Cut(line, "="); ok && strings.TrimSpace(k) == "home" {
				add(filepath.Dir(strings.TrimSpace(v)))
			}
		}
	} else if _, err := os.Stat(filepath.Join(top, "conda-meta")); err == nil || len(found) > 0 {
		add(top)
	}
}

// shebang are the words behind #! in a script's first line that name programs.
func shebang(path string) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	line, _ := bufio.NewReaderSize(f, 512).ReadSlice('\n') // a longer line is no script's
	words, ok := strings.CutPrefix(string(line), "#!")
	if !ok {
		return nil
	}
	return slices.DeleteFunc(strings.Fields(words), func(w string) bool { return strings.HasPrefix(w, "-") || strings.Contains(w, "=") })
}

// libraries adds the folders that a program, and the libraries that it names,
// say they look for libraries in.
func (c *Confinement) libraries(path string, add func(string), seen *int) {
	if *seen++; *seen > mostLibraries {
		return
	}
	f, err := elf.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	origin := filepath.Dir(path)
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		said, _ := f.DynString(tag) // a program without any has none
		for _, s := range said {
			for dir := range strings.SplitSeq(s, ":") {
				dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
				if info, err := os.Stat(dir); err == nil && info.IsDir() && filepath.IsAbs(dir) && !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	needed, _ := f.ImportedLibraries()
	for _, dir := range dirs {
		used := false
		for _, name := range needed {
			if real, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil {
				used = true
				if filepath.Dir(real) != filepath.Clean(dir) {
					add(filepath.Dir(real))
				}
				c.libraries(real, add, seen)
			}
		}
		if used {
			add(dir)
		}
	}
}

// tooWide reports whether a folder would open what trainers have no business
// with: the whole disk, all homes, one's home, all temporary files, a private folder.
func (c *Confinement) tooWide(dir string) bool {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return true
	}
	home, _ := os.UserHomeDir()
	if slices.Contains([]string{"/", "/home", "/root", "/tmp", "/var", "/var/tmp", "/etc", "/dev", "/run", "/mnt", "/srv", "/media", home}, real) {
		return true
	}
	return slices.ContainsFunc(c.cfg.Private, func(p string) bool { return in(p, real) || in(real, p) })
}

// in reports whether a path is a folder or below it; both clean and absolute.
func in(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
