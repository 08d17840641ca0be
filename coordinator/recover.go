package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"atelier/coordinator/member"
	"atelier/coordinator/replica"
)

const recoverUsage = `atelier-coordinator recover --data DIR [--yes]

Makes the coordinator in DIR the only member of a new cluster that continues from
what DIR contains. For a cluster that lost the majority of its coordinators for
good; with a majority that can be started again, start it instead.

`

// recoverCommand is `atelier-coordinator recover`; it returns the exit code.
func recoverCommand(args []string, stdin *os.File, out io.Writer) int {
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(out)
	flags.Usage = func() { fmt.Fprint(out, recoverUsage); flags.PrintDefaults() }
	data := flags.String("data", os.Getenv(env("data")[0]), "data folder of the coordinator that is to continue alone")
	yes := flags.Bool("yes", false, "do it without asking")
	switch err := flags.Parse(args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case *data == "" || flags.NArg() > 0:
		fmt.Fprintln(out, "atelier-coordinator recover: give --data DIR and nothing else")
		return 2
	}
	if err := recoverFolder(*data, *yes, stdin, out); err != nil {
		fmt.Fprintf(out, "atelier-coordinator recover: %v\n", err)
		return 1
	}
	return 0
}

// recoverFolder says what there is and what will be lost, asks, and does it.
func recoverFolder(data string, yes bool, stdin *os.File, out io.Writer) error {
	found, id, err := member.Recover(data, func(found replica.Found) error {
		describe(out, data, found)
		if yes {
			return nil
		}
		return agreed(stdin, out, found.ID)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Coordinator %s is the only member of the new cluster %s. Start it as before, without --bootstrap;\nthen empty the --data folder of each other coordinator and start it with --join.\n", found.ID, id)
	return nil
}

// describe says what there is and what becomes of it.
func describe(out io.Writer, data string, found replica.Found) {
	fmt.Fprintf(out, "%s: coordinator %s of cluster %s\n  newest entry    index %d, term %d\n  contains        %d sweeps, %d trials\n  members\n",
		data, found.ID, found.ClusterID, found.Index, found.Term, len(found.State.Sweeps()), found.State.Trials())
	voters := 0
	for _, b := range found.Members {
		role := "voter"
		if b.Voter {
			voters++
		} else {
			role = "no vote"
		}
		mine := ""
		if b.ID == found.ID {
			mine = "  (this one)"
		}
		fmt.Fprintf(out, "    %-14s %s  %s%s\n", b.ID, b.Address, role, mine)
	}
	fmt.Fprintf(out, "Recovering makes %s the only member of a new cluster.\n"+
		"  - Of several that are left, recover the one with the highest term, then the highest index: run this on each and answer no.\n"+
		"  - What the other members acknowledged beyond index %d is lost.\n"+
		"  - Entries up to it that no majority had yet become part of the state.\n"+
		"  - The others are refused from now on, also when they come back with their old folders.\n", found.ID, found.Index)
	if voters > 0 {
		fmt.Fprintf(out, "  - If %d of the %d voters can be started again, do that instead: nothing is lost then.\n", voters/2+1, voters)
	}
}

// agreed asks a person; a program has to say --yes.
func agreed(stdin *os.File, out io.Writer, id string) error {
	if _, err := unix.IoctlGetTermios(int(stdin.Fd()), unix.TCGETS); err != nil {
		return errors.New("nothing was changed: confirm with --yes")
	}
	fmt.Fprintf(out, "Type the coordinator's id (%s) to do it: ", id)
	line, _ := bufio.NewReader(stdin).ReadString('\n')
	if strings.TrimSpace(line) != id {
		return errors.New("nothing was changed")
	}
	return nil
}
