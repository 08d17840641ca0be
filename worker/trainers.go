package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"atelier/common/child"
	"atelier/common/trainerproto"
	"atelier/worker/runner"
)

const (
	torchTrainer = "torch"
	simTrainer   = "sim"
)

// trainers lists what this machine can start: the trainer with libtorch where
// it is installed, the simulated one, and those the file names.
func trainers(bin, file string) (list []runner.Trainer, notes []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	path, _, err := child.Find("atelier-trainer", bin)
	switch {
	case err == nil:
		t := runner.Trainer{Name: torchTrainer, Command: []string{path, "train"}, Own: true}
		// NCCL connects GPUs by sockets of its own, and its library may lie anywhere.
		t.Network = trainerproto.MayUseNCCL(os.Getenv(trainerproto.TransferVariable))
		if lib := os.Getenv(trainerproto.NCCLVariable); t.Network && lib != "" {
			t.Read = append(t.Read, filepath.Dir(lib))
		}
		list = append(list, t)
	case bin != "":
		return nil, nil, fmt.Errorf("--trainer-bin: %w", err)
	default:
		notes = append(notes, "no atelier-trainer beside this program or on PATH: sweeps with trainer torch are not taken here")
	}
	list = append(list, runner.Trainer{Name: simTrainer, Command: []string{self, "simtrainer"}, Own: true})
	if file == "" {
		return list, notes, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("--trainers: %w", err)
	}
	defer f.Close()
	more, err := readTrainers(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, nil, fmt.Errorf("--trainers %s: %w", file, err)
	}
	return append(list, more...), notes, nil
}

// warm resolves --warm.
func warm(asked []string, offered []runner.Trainer) []string {
	if !slices.Equal(asked, []string{"auto"}) {
		return slices.DeleteFunc(slices.Clone(asked), func(n string) bool { return n == "none" })
	}
	if slices.ContainsFunc(offered, func(t runner.Trainer) bool { return t.Name == torchTrainer }) {
		return []string{torchTrainer}
	}
	return nil
}

// readTrainers reads `trainers: {name: {command: [..], env: {..}, read: [..],
// write: [..], network: true}}`. Paths are absolute: they are the machine's, not of
// the folder that somebody started the worker in.
func readTrainers(r io.Reader) ([]runner.Trainer, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var doc struct {
		Trainers map[string]struct {
			Command []string          `yaml:"command"`
			Env     map[string]string `yaml:"env"`
			Read    []string          `yaml:"read"`
			Write   []string          `yaml:"write"`
			Network bool              `yaml:"network"`
		} `yaml:"trainers"`
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil && err != io.EOF {
		return nil, err
	}
	var list []runner.Trainer
	for name, t := range doc.Trainers {
		if !workerName.MatchString(name) {
			return nil, fmt.Errorf("trainers.%s: a name has 1 to 64 letters, digits, dots, dashes or underscores", name)
		}
		if name == torchTrainer || name == simTrainer {
			return nil, fmt.Errorf("trainers.%s: this name is taken by a trainer of Atelier's own", name)
		}
		if len(t.Command) == 0 || t.Command[0] == "" {
			return nil, fmt.Errorf("trainers.%s.command: give the program and its arguments as a list", name)
		}
		if _, err := exec.LookPath(t.Command[0]); err != nil {
			return nil, fmt.Errorf("trainers.%s.command: %w", name, err)
		}
		for _, paths := range []struct {
			key  string
			list []string
		}{{"read", t.Read}, {"write", t.Write}} {
			for _, path := range paths.list {
				if !filepath.IsAbs(path) {
					return nil, fmt.Errorf("trainers.%s.%s: %q is not an absolute path", name, paths.key, path)
				}
				if _, err := os.Stat(path); err != nil {
					return nil, fmt.Errorf("trainers.%s.%s: %w", name, paths.key, err)
				}
			}
		}
		list = append(list, runner.Trainer{Name: name, Command: t.Command, Env: t.Env, Read: t.Read, Write: t.Write, Network: t.Network})
	}
	slices.SortFunc(list, func(a, b runner.Trainer) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list, nil
}
