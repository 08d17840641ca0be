// Package exit has the exit codes of the programs, each with what it means: the
// constants are what the programs return, the tables what help, manual pages and
// the reference show.
package exit

import (
	"fmt"
	"strings"
)

// Exit codes. A code means the same in every program that has it.
const (
	OK          = 0
	Error       = 1
	Usage       = 2
	NotFound    = 3 // of atelier
	Removed     = 3 // of atelier-coordinator
	Refused     = 4
	NoLeader    = 5
	SweepFailed = 6
	Timeout     = 124
	Interrupted = 130
)

// Code is a row of a table.
type Code struct {
	Code    int    `json:"code"`
	Meaning string `json:"meaning"`
}

// Atelier are the codes of the command.
var Atelier = []Code{
	{OK, "done"},
	{Error, "an error, also what the cluster's state does not allow now; the message has what, where and what to do"},
	{Usage, "the command line makes no sense, or has no command; nothing was done"},
	{NotFound, "the sweep, trial, worker, checkpoint, key or file is not there"},
	{Refused, "the cluster or another server wants other credentials, or another role"},
	{NoLeader, "no coordinator, or none that leads, answered within --retry-for"},
	{SweepFailed, "the work itself failed, or was cancelled, in the cluster"},
	{Timeout, "--timeout, or the command's own time to wait, is over"},
	{Interrupted, "interrupted (Ctrl-C)"},
}

// Coordinator are the codes of atelier-coordinator.
var Coordinator = []Code{
	{OK, "ended by SIGTERM or SIGINT"},
	{Error, "an error; the message has what, where and what to do"},
	{Usage, "the flags make no sense; nothing was started"},
	{Removed, "removed from its cluster; starting it again changes nothing"},
}

// Worker are the codes of atelier-worker.
var Worker = []Code{
	{OK, "ended by SIGTERM or SIGINT, its trials with a checkpoint"},
	{Error, "an error; the message has what, where and what to do"},
	{Usage, "the flags make no sense; nothing was started"},
}

// Programs are the tables by the programs' names, in the order of the reference.
var Programs = []struct {
	Name  string
	Codes []Code
}{{"atelier", Atelier}, {"atelier-coordinator", Coordinator}, {"atelier-worker", Worker}}

// Text is a table for a help, a line a code, each indented.
func Text(codes []Code, indent string) string {
	var b strings.Builder
	for _, c := range codes {
		fmt.Fprintf(&b, "%s%-5d%s\n", indent, c.Code, c.Meaning)
	}
	return b.String()
}

// Markdown is the section of the reference page.
func Markdown() []byte {
	var b strings.Builder
	b.WriteString("## Exit codes\n\nAlso: `atelier explain exit-codes`.\n")
	for _, p := range Programs {
		fmt.Fprintf(&b, "\n| %s | |\n|---|---|\n", p.Name)
		for _, c := range p.Codes {
			fmt.Fprintf(&b, "| %d | %s |\n", c.Code, c.Meaning)
		}
	}
	return []byte(b.String())
}
