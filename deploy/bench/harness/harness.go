// Package harness is what the measuring programs below deploy/bench have in
// common: flags, signals, a scratch folder, parts of a measurement, a journal
// from which an interrupted one goes on, sides that take turns, and tables in
// Markdown. A bench says what one round is, and nothing here knows what it
// measures.
//
// Absolute figures drift on a shared machine. Hence the turns: compare ratios.
package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Part is one kind of measurement of a program.
type Part struct {
	Name, What string
	Aside      bool                            // measured only where -parts names it
	Run        func(ctx context.Context) error // measures what the journal lacks, or prints by itself
	Table      func() string                   // what the journal holds, Markdown; nil: Run prints
}

// Session is one call of a measuring program. Its setup fills in the first
// group; the rest is there when a part runs.
type Session struct {
	Flags    *flag.FlagSet
	Parts    []Part          // with more than one, -parts chooses
	Check    func() error    // of the flags, once they are parsed; may be nil
	Measured func() []string // files of what is measured: a change begins the journal's measurements anew
	Scripts  fs.FS           // written into Dir, and measured too; may be nil
	Quiet    bool            // measurements are not told one by one

	Dir     string // scratch, removed at the end
	Keep    bool   // but not then
	Bin     string // absolute, where BinFlag is
	Python  string
	Rounds  int
	Print   bool // measure nothing, print what the journal holds
	Journal *Journal

	again bool
	path  string // of the journal
	out   io.Writer
}

// BinFlag declares -bin.
func (s *Session) BinFlag() { s.Flags.StringVar(&s.Bin, "bin", "bin", "`FOLDER` of the programs") }

// PythonFlag declares -python.
func (s *Session) PythonFlag(with string) {
	s.Flags.StringVar(&s.Python, "python", "/usr/bin/python3", "Python with "+with)
}

// RoundsFlag declares -rounds.
func (s *Session) RoundsFlag(rounds int, usage string) {
	s.Flags.IntVar(&s.Rounds, "rounds", rounds, usage)
}

// JournalFlags declares -journal, -again and -print. Without a path
// measurements are kept in memory alone.
func (s *Session) JournalFlags(path string) {
	s.Flags.StringVar(&s.path, "journal", path, "`FILE` that keeps every measurement; those of the same programs are not repeated")
	s.Flags.BoolVar(&s.again, "again", false, "repeat the measurements in the journal")
	s.Flags.BoolVar(&s.Print, "print", false, "print the journal, whichever programs it is of; measure nothing")
}

// Strings declares a flag that is a comma list.
func (s *Session) Strings(to *[]string, name, usage string, values ...string) {
	*to = values
	s.Flags.Var(&list[string]{to, func(item string) (string, error) { return item, nil }}, name, usage+", a comma list")
}

// Numbers declares a flag that is a comma list of numbers above 0.
func (s *Session) Numbers(to *[]int, name, usage string, values ...int) {
	*to = values
	s.Flags.Var(&list[int]{to, func(item string) (int, error) {
		n, err := strconv.Atoi(item)
		if err != nil || n < 1 {
			return 0, fmt.Errorf("want numbers above 0, such as 1,8; got %q", item)
		}
		return n, nil
	}}, name, usage+", a comma list")
}

// list is the value of a flag.
type list[T any] struct {
	to    *[]T
	parse func(string) (T, error)
}

// String implements flag.Value: the list as it is typed.
func (l *list[T]) String() string {
	if l.to == nil { // the flag package asks a zero value
		return ""
	}
	var items []string
	for _, v := range *l.to {
		items = append(items, fmt.Sprint(v))
	}
	return strings.Join(items, ",")
}

// Set implements flag.Value. A list that is given replaces the default; empty items are passed
// over. The error is that of the first item that is wrong, and nothing is taken then.
func (l *list[T]) Set(text string) error {
	var values []T
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		v, err := l.parse(item)
		if err != nil {
			return err
		}
		values = append(values, v)
	}
	*l.to = values
	return nil
}

// Say tells people how far it is, on standard error.
func (s *Session) Say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Printf writes a part of the result, on standard output.
func (s *Session) Printf(format string, args ...any) { fmt.Fprintf(s.out, format, args...) }

// Main runs a measuring program and ends the process. An interrupt ends what is
// measured; what the journal holds stays.
func Main(name string, args []string, setup func(s *Session)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Run(ctx, name, args, os.Stdout, setup)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errFlags):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// errFlags is of flags that the flag package has complained about already.
var errFlags = errors.New("flags")

// Run is a measuring program from its arguments to its end.
func Run(ctx context.Context, name string, args []string, out io.Writer, setup func(s *Session)) (err error) {
	s := &Session{Flags: flag.NewFlagSet(name, flag.ContinueOnError), Rounds: 1, out: out}
	setup(s)
	var wanted, names []string
	for _, p := range s.Parts {
		names = append(names, p.Name)
		if !p.Aside {
			wanted = append(wanted, p.Name)
		}
	}
	if len(s.Parts) > 1 {
		s.Strings(&wanted, "parts", "what to measure, of "+strings.Join(names, ", "), wanted...)
	}
	if err := s.Flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: %w", errFlags, err)
	}
	if s.Flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q; only flags are taken, -h lists them", s.Flags.Arg(0))
	}
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return fmt.Errorf("-parts: no part %q; there are %s", w, strings.Join(names, ", "))
		}
	}
	if s.Rounds < 1 {
		return errors.New("-rounds must be above 0")
	}
	if s.Check != nil {
		if err := s.Check(); err != nil {
			return err
		}
	}
	if s.Bin != "" {
		if s.Bin, err = filepath.Abs(s.Bin); err != nil {
			return err
		}
	}
	if s.Dir, err = os.MkdirTemp("", "atelier-bench-"+name+"-"); err != nil {
		return err
	}
	if s.Keep {
		s.Say("kept in %s", s.Dir)
	} else {
		defer os.RemoveAll(s.Dir)
	}
	programs := ""
	if s.Measured != nil && !s.Print {
		if programs, err = digest(s.Measured(), s.Scripts); err != nil {
			return err
		}
	}
	if s.Scripts != nil {
		if err := os.CopyFS(s.Dir, s.Scripts); err != nil {
			return err
		}
	}
	if s.Journal, err = OpenJournal(s.path, programs); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Journal.Close()) }()
	for _, p := range s.Parts {
		if !slices.Contains(wanted, p.Name) && !s.Print {
			continue
		}
		if len(s.Parts) > 1 && !s.Print {
			s.Say("== %s: %s", p.Name, p.What)
		}
		if p.Table == nil || !s.Print {
			if err := p.Run(ctx); err != nil && len(s.Parts) > 1 {
				return fmt.Errorf("%s: %w", p.Name, err)
			} else if err != nil {
				return err
			}
		}
		if p.Table != nil {
			s.Printf("%s", p.Table())
		}
	}
	return nil
}

// Measure takes one measurement and writes it down, unless the journal holds it
// for the same programs.
func Measure[T any](s *Session, key string, take func() (T, error)) (T, error) {
	var result T
	if !s.again && s.Journal.Last(key, &result) {
		if !s.Quiet {
			s.Say("%s: measured earlier", key)
		}
		return result, nil
	}
	at, load := time.Now(), loadAverage()
	result, err := take()
	if err != nil {
		return result, fmt.Errorf("%s: %w", key, err)
	}
	if !s.Quiet {
		s.Say("%s: %.0f s, load %.1f", key, time.Since(at).Seconds(), load)
	}
	return result, s.Journal.Add(key, at, load, result)
}

// Turns lets each of so many sides do its turn once a round, in an order that
// turns round each time. Rounds count from 0.
func Turns(rounds, sides int, turn func(round, side int) error) error {
	for round := range rounds {
		for i := range sides {
			side := i
			if round%2 != 0 {
				side = sides - 1 - i
			}
			if err := turn(round, side); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadAverage of the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	data, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(data), " ")
	v, _ := strconv.ParseFloat(first, 64)
	return v
}
