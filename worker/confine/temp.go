package confine

import (
	"fmt"
	"os"
	"path/filepath"
)

// clearTemp removes what trainers of an earlier start left.
func (c *Confinement) clearTemp() error {
	if err := os.RemoveAll(c.cfg.Temp); err != nil {
		return fmt.Errorf("temporary files of trainers: %w", err)
	}
	if err := os.MkdirAll(c.cfg.Temp, 0o711); err != nil {
		return fmt.Errorf("temporary files of trainers: %w", err)
	}
	if c.user == nil {
		return nil
	}
	return c.giveAll()
}

// NewTemp makes a trainer's folder for temporary files, nobody else's. DropTemp
// removes it.
func (c *Confinement) NewTemp(name string) (string, error) {
	dir := filepath.Join(c.cfg.Temp, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("temporary files of a trainer: %w", err)
	}
	if err := c.Give(dir); err != nil {
		return "", err
	}
	return dir, nil
}

// DropTemp removes a trainer's folder of temporary files; "" = it has none.
func (c *Confinement) DropTemp(dir string) {
	if dir == "" {
		return
	}
	_ = os.RemoveAll(dir) // what stays goes at the next start
}
