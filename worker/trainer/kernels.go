//go:build libtorch

package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"atelier/common/kernels"
	"atelier/worker/trainer/torchx"
)

// chooseKernels turns kernels on and off by the environment, else by what was
// said.
func chooseKernels(said string) error {
	on, err := kernels.Chosen(said)
	if err == nil {
		torchx.UseKernels(on)
	}
	return err
}

// listKernels prints the table of kernels.
func listKernels(out io.Writer) error {
	on, err := kernels.Chosen("")
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KERNEL\tON\tOPERATION\tIN PLACE OF\tPRECISIONS\tWHERE")
	for _, k := range kernels.All {
		state := "no"
		if on.Has(k.Name) {
			state = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Name, state, k.Operation, k.Replaces, k.Precisions, k.Applies)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nOn a CPU; their loops are compiled for %s here. %s chooses: all, none, or a list such as -dense,-norm.\n", torchx.Instructions(), kernels.Environment)
	return err
}
