package tune

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"atelier/common/child"
	"atelier/common/local"
)

// startFor bounds the start of the cluster on this machine.
const startFor = 2 * time.Minute

// findPrograms looks for the folder of the servers: beside this program, then
// on the PATH.
func findPrograms() (string, error) {
	const coordinator, worker = "atelier-coordinator", "atelier-worker"
	path, beside, err := child.Find(coordinator, "")
	if err == nil {
		_, err = exec.LookPath(filepath.Join(filepath.Dir(path), worker))
	}
	if err != nil {
		return "", fmt.Errorf("a tuning on this machine takes %s and %s, in one folder, looked for in %s and on the PATH: build them with `make programs`, or name a cluster with --addr", coordinator, worker, filepath.Dir(beside))
	}
	return filepath.Dir(path), nil
}

// startLocal starts the cluster of one machine, or starts it again on the data
// of an earlier session.
func (s *tuning) startLocal(ctx context.Context) (*local.Cluster, error) {
	c := s.plan.Config
	dir, err := findPrograms()
	if err != nil {
		return nil, err
	}
	redis := false
	if mode := c.String("local.redis"); mode != "off" {
		_, err := exec.LookPath("redis-server")
		if redis = err == nil; !redis && mode == "on" {
			return nil, fmt.Errorf("local.redis (%s): %w: install it (apt install redis-server), or set auto or off", c.Get("local.redis").Source(), err)
		}
	}
	args := []string{"--slots", c.Get("local.slots").Text(), "--threads-per-slot", c.Get("local.threads").Text()}
	if s.o.Trainer != "" {
		args = append(args, "--trainer-bin", s.o.Trainer)
	}
	if c.String(keyTrainer) != "torch" {
		args = append(args, "--warm", "none")
	}
	if cache, err := os.UserCacheDir(); err == nil {
		args = append(args, "--cache", filepath.Join(cache, "atelier", "packs")) // the same as of `atelier train`
	}
	ctx, cancel := context.WithTimeout(ctx, startFor)
	defer cancel()
	return local.Start(ctx, local.Config{Dir: s.folder.InResume(clusterDir), BinDir: dir, Workers: 1, Redis: redis, Shared: true,
		ExtraArgs: map[string][]string{"worker": args}})
}

// clearLocal removes the cluster's data once all that matters is written, where
// nobody wants to go on with it. Logs stay.
func (f folder) clearLocal() error {
	entries, err := os.ReadDir(f.InResume(clusterDir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != "logs" {
			err = errors.Join(err, os.RemoveAll(f.InResume(clusterDir, e.Name())))
		}
	}
	return errors.Join(err, os.RemoveAll(f.InResume(subsetName)))
}
