//go:build libtorch

package train

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"atelier/common/dataset"
	"atelier/common/trainerproto"
	"atelier/worker/trainer/torchx"
)

// Failure is why a run ended, with the class that decides about a retry.
type Failure struct {
	Class string // of trainerproto
	Err   error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

func badSpec(format string, args ...any) error {
	return &Failure{trainerproto.FailedBadSpec, fmt.Errorf(format, args...)}
}

// refuse is badSpec, save where err says that data is not on this machine.
func refuse(err error, format string, args ...any) error {
	f := &Failure{trainerproto.FailedBadSpec, fmt.Errorf(format, args...)}
	if dataset.Missing(err) {
		f.Class = trainerproto.FailedDataMissing
	}
	return f
}

// Classify turns whatever ended a run into a Failure. ctx's own end is not
// one and passes through.
func Classify(err error) error {
	var f *Failure
	var torch *torchx.Error
	switch {
	case err == nil, errors.As(err, &f), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &torch):
		switch {
		case torch.Class == torchx.OutOfMemory:
			return &Failure{trainerproto.FailedOutOfMemory, fmt.Errorf("out of memory: reduce batch_size or image_size (%w)", err)}
		case torch.Class == torchx.DeviceFault:
			return &Failure{trainerproto.FailedDeviceFault, err}
		case strings.Contains(torch.Text, "more than one value a channel"):
			return badSpec("%s (%w)", noVariance, err)
		}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &Failure{trainerproto.FailedDiskFull, fmt.Errorf("disk full: %w", err)}
	case errors.Is(err, syscall.ENOMEM):
		return &Failure{trainerproto.FailedOutOfMemory, err}
	}
	return &Failure{trainerproto.FailedCrashed, err}
}
