package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"atelier/common/dataset"
	"atelier/tuner/data/layout"
)

// split is a data set as the sweeps name it: absolute folders.
type split struct{ train, validation string }

// prepareData draws facades, takes a folder that is split already, or splits
// one into the run's folder.
func (m *Main) prepareData(ctx context.Context) (split, error) {
	if m.Recipe.Trainer != "torch" {
		return split{}, nil
	}
	m.title("Data")
	if m.Data == "" {
		dir := filepath.Join(m.Dir, "data")
		if err := m.call(ctx, m.Out, "data", "synth", dir, "--train", strconv.Itoa(m.PerClass), "--validation", strconv.Itoa(max(m.PerClass/3, 1)), "--test", "0", "--seed", strconv.FormatUint(m.Recipe.Seed, 10)); err != nil {
			return split{}, err
		}
		return m.describe(split{filepath.Join(dir, "train"), filepath.Join(dir, "validation")})
	}
	dir, err := filepath.Abs(m.Data)
	if err != nil {
		return split{}, err
	}
	l, err := layout.Look(dir)
	switch {
	case err != nil:
		return split{}, err
	case l.Kind == layout.Split:
		return m.describe(split{l.Train, l.Validation})
	case l.Kind == layout.Other:
		return split{}, errors.New(l.Why)
	}
	to := filepath.Join(m.Dir, "data")
	s := split{filepath.Join(to, "train"), filepath.Join(to, "validation")}
	if err := splitFolder(dir, s, m.Share, m.Recipe.Seed); err != nil {
		return split{}, err
	}
	return m.describe(s)
}

func (m *Main) describe(s split) (split, error) {
	train, err := dataset.List(s.train)
	if err != nil {
		return split{}, err
	}
	validation, err := dataset.ListHeldOut(s.validation)
	if err != nil {
		return split{}, err
	}
	if err := dataset.SameClasses("train", train.Classes, "validation", validation.Classes); err != nil {
		return split{}, err
	}
	most := 0
	for _, n := range validation.Counts() {
		most = max(most, n)
	}
	fmt.Fprintf(m.Out, "%d images to train on and %d to validate, %d classes; always guessing the most common class is right for %.0f %%\n",
		len(train.Files), len(validation.Files), len(train.Classes), 100*float64(most)/float64(len(validation.Files)))
	return s, nil
}

// splitFolder divides each class of an image folder by a share, in an order
// that depends on the seed and the class alone, and puts hard links (copies,
// on another file system) into the two folders. Every class gets at least one
// image on each side.
func splitFolder(dir string, to split, share float64, seed uint64) error {
	folder, err := dataset.List(dir)
	if err != nil {
		return err
	}
	byClass := make([][]string, len(folder.Classes))
	for _, f := range folder.Files {
		byClass[f.Class] = append(byClass[f.Class], f.Path)
	}
	for class, files := range byClass {
		if len(files) < 2 {
			return fmt.Errorf("split %s: class %s has only one image; at least two are needed", dir, folder.Classes[class])
		}
		rng := rand.New(rand.NewPCG(seed, uint64(class)))
		rng.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		held := min(max(int(share*float64(len(files))+0.5), 1), len(files)-1)
		for i, path := range files {
			target := to.train
			if i < held {
				target = to.validation
			}
			if err := place(filepath.Join(dir, path), filepath.Join(target, path)); err != nil {
				return fmt.Errorf("split %s: %w", dir, err)
			}
		}
	}
	return nil
}

func place(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if err := os.Link(real, to); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	in, err := os.Open(real)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
