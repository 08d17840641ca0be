package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is whom trainers run as.
type account struct {
	Name     string
	UID, GID int
	Groups   []int
}

// findAccount looks a user up by name or number, with all of its groups: GPUs
// and data are often a group's.
func findAccount(name string) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%s: only a worker that root runs can start trainers as another user", name)
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("%s: no such user: create it (useradd --system --no-create-home %s)", name, name)
		}
	}
	a := &account{Name: u.Username}
	if a.UID, err = strconv.Atoi(u.Uid); err != nil {
		return nil, fmt.Errorf("%s: user id %q: %w", name, u.Uid, err)
	}
	if a.GID, err = strconv.Atoi(u.Gid); err != nil {
		return nil, fmt.Errorf("%s: group id %q: %w", name, u.Gid, err)
	}
	if a.UID == 0 {
		return nil, fmt.Errorf("%s is root: give a user without rights", name)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("%s: its groups: %w", name, err)
	}
	for _, g := range groups {
		n, err := strconv.Atoi(g)
		if err != nil {
			return nil, fmt.Errorf("%s: group id %q: %w", name, g, err)
		}
		a.Groups = append(a.Groups, n)
	}
	return a, nil
}

// become makes this process the account's, for good.
func (a *account) become() error {
	if err := syscall.Setgroups(a.Groups); err != nil {
		return fmt.Errorf("become user %s: set groups: %w", a.Name, err)
	}
	if err := syscall.Setresgid(a.GID, a.GID, a.GID); err != nil {
		return fmt.Errorf("become user %s: set the group: %w", a.Name, err)
	}
	if err := syscall.Setresuid(a.UID, a.UID, a.UID); err != nil {
		return fmt.Errorf("become user %s: set the user: %w", a.Name, err)
	}
	return nil
}

// Give makes a folder of a run the trainers' user's own; without one it does
// nothing.
func (c *Confinement) Give(dir string) error {
	if c == nil || c.user == nil {
		return nil
	}
	// A trainer may have put a link there; what it leads to must not become its own.
	if err := os.Lchown(dir, c.user.UID, c.user.GID); err != nil {
		return fmt.Errorf("give the folder to user %s: %w (on a shared folder root must not be squashed)", c.user.Name, err)
	}
	return nil
}

// giveAll gives the folder of packed images, which trainers share, and looks
// whether their user can get to the folders of its runs. Packed images of a time
// before there was the user are given, too.
func (c *Confinement) giveAll() error {
	for _, dir := range append([]string{c.cfg.Temp}, c.cfg.Write...) {
		if err := c.enterable(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("--trainer-user %s: %w", c.user.Name, err)
		}
	}
	if c.cfg.Cache == "" {
		return nil
	}
	packs, err := os.ReadDir(c.cfg.Cache) // flat: no folder in it may lead elsewhere meanwhile
	if err != nil {
		return err
	}
	for _, p := range packs {
		if err := c.Give(filepath.Join(c.cfg.Cache, p.Name())); err != nil {
			return err
		}
	}
	return c.Give(c.cfg.Cache)
}

// enterable reports whether the user may pass through a folder and all above it.
func (c *Confinement) enterable(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return errors.New("the owner of folders is not known on this system")
		}
		if !c.user.mayEnter(info.Mode(), int(st.Uid), int(st.Gid)) {
			return fmt.Errorf("it may not pass through %s (mode %o): take another data folder, or chmod a+x %s", dir, info.Mode().Perm(), dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func (a *account) mayEnter(mode fs.FileMode, uid, gid int) bool {
	if uid == a.UID {
		return mode&0o100 != 0
	}
	for _, g := range append([]int{a.GID}, a.Groups...) {
		if g == gid {
			return mode&0o010 != 0
		}
	}
	return mode&0o001 != 0
}
