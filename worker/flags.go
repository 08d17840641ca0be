package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"atelier/common/client"
	"atelier/common/exit"
	"atelier/common/identity"
	"atelier/common/man"
	"atelier/common/setting"
	"atelier/common/stdio"
	"atelier/common/version"
	"atelier/worker/confine"
	"atelier/worker/wire"
)

// Config is what the flags say.
type Config struct {
	Name, Data, Listen, Gossip, Advertise string
	GossipKeyFile                         string
	Join, Addrs                           []string
	Invitation                            *identity.Invitation // to a closed cluster, in place of Join
	Slots                                 string
	ThreadsPerSlot                        int
	Shared, Cache                         string
	TrainersFile, TrainerBin              string
	Warm                                  []string
	Labels                                map[string]string
	Insecure                              bool
	AddressFile                           string
	LogLevel                              string
	DrainGrace                            time.Duration
	GroupWire                             wire.Kind
	Confine                               confine.Mode
	DataRoots                             []string
	TrainerUser                           string
	TrainerFileGiB                        int64 // 0 = any size
}

func init() { cli.FlagStringer = man.Help(cli.FlagStringer) }

var workerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ParseFlags reads the command line and the environment
// (ATELIER_WORKER_<FLAG>). help is true when only help or the version was asked for.
func (m *Main) ParseFlags(args []string) (help bool, err error) {
	host, _ := os.Hostname()
	str := func(name, value, usage string) *cli.StringFlag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: []string{envName(name)}}
	}
	ran := false
	app := &cli.App{
		Name: "atelier-worker", Usage: "take trials from the coordinators and train them on this machine", Version: version.Version, Writer: man.Terminal(os.Stdout, os.Stdout),
		HideHelpCommand: true, ExitErrHandler: func(*cli.Context, error) {}, OnUsageError: func(_ *cli.Context, err error, _ bool) error { return err },
		Description: "atelier-worker simtrainer is the simulated trainer; the agent starts it by itself.\n\nExit codes:\n" + exit.Text(exit.Worker, "  "),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Value: host, DefaultText: "this machine's name", Usage: "name of this worker, unique in the cluster", EnvVars: []string{envName("name")}},
			str("data", "", "folder for checkpoints, logs and pid files (needed)"),
			str("listen", "127.0.0.1:7610", "address of the file server: checkpoints, logs, /metrics, /healthz"),
			str("gossip", "127.0.0.1:7612", "address to find the others at"),
			str("advertise", "", "host others reach this one at; needed when an address is 0.0.0.0"),
			str("join", "", "an invitation to a closed cluster, as atelier cluster invite prints it; or gossip addresses HOST:PORT[,..] of any node of an open one"),
			str("addr", "", "API addresses HOST:PORT[,..] of coordinators; found through --join when not given"),
			str("slots", "auto", "runs at once: auto (one per GPU, else one per core up to eight, beyond that one for every four), N, gpu:N or cpu:N"),
			&cli.StringFlag{Name: "threads-per-slot", Value: "0", Usage: "CPU threads of one run; 0 shares the cores evenly", EnvVars: []string{envName("threads-per-slot")}},
			str("shared", "", "folder that all workers share, for checkpoints"),
			str("cache", "", "folder for packed image sets (default: cache in the data folder)"),
			str("trainers", "", "YAML file that names further trainers"),
			str("trainer-bin", "", "the atelier-trainer program (default: beside this one, then on PATH)"),
			str("warm", "auto", "trainers NAME[,..] kept warm in each slot from the start: auto (torch where it is installed), none or names"),
			str("confine", string(confine.On), "limits of trainers: on (what this kernel has), require (all, or do not start) or off"),
			str("data-root", "", "folders FOLDER[,..] that sweeps may name data and weights in (default: any that this worker can read)"),
			str("trainer-user", "", "user that trainers run as; needs root"),
			str("trainer-file-gib", "512", "largest file that a trainer may write, in GiB; 0 = any"),
			str("labels", "", "labels k=v[,..] of this worker"),
			&cli.BoolFlag{Name: "insecure", Usage: "allow addresses other than this machine's own, without encryption", EnvVars: []string{envName("insecure")}},
			str("group-wire", string(wire.Direct), "how trainers of one training on several workers are linked: direct (each is handed the connection between the workers) or agents (the workers relay, at twice the processor time)"),
			str("gossip-key-file", "", "file of mode 0600 with the cluster's gossip key"),
			str("address-file", "", "JSON file to write the addresses to, once serving"),
			str("log-level", "info", "debug, info, warn or error"),
			&cli.DurationFlag{Name: "drain-grace", Value: 30 * time.Second, Usage: "time for running trials to write a checkpoint and end, at SIGTERM", EnvVars: []string{envName("drain-grace")}},
			&cli.BoolFlag{Name: "man", Usage: "print the manual page", Hidden: true},
		},
		Action: func(c *cli.Context) error {
			if c.Bool("man") {
				_, err := stdio.Output().Write(man.Program(c.App, 8, exit.Worker).Bytes())
				return err
			}
			ran = true
			if c.Args().Present() {
				return fmt.Errorf("%q is not a flag; see --help", c.Args().First())
			}
			m.Config = Config{Name: c.String("name"), Data: c.String("data"), Listen: c.String("listen"), Gossip: c.String("gossip"), Advertise: c.String("advertise"),
				Join: list(c.String("join")), Slots: c.String("slots"), Shared: c.String("shared"), Cache: c.String("cache"),
				TrainersFile: c.String("trainers"), TrainerBin: c.String("trainer-bin"), Insecure: c.Bool("insecure"), AddressFile: c.String("address-file"),
				LogLevel: c.String("log-level"), Warm: list(c.String("warm")), DrainGrace: c.Duration("drain-grace"), GossipKeyFile: c.String("gossip-key-file")}
			if text := c.String("join"); identity.IsInvitation(text) {
				i, err := identity.ParseInvitation(text)
				if err != nil {
					return fmt.Errorf("--join: %w", err)
				}
				m.Config.Invitation, m.Config.Join = &i, nil
			}
			threads, err := setting.Whole(c.String("threads-per-slot")) // the library's numbers are octal where they begin with a zero
			if err != nil {
				return fmt.Errorf("--threads-per-slot: %w", err)
			}
			m.Config.ThreadsPerSlot = int(threads)
			if m.Config.GroupWire, err = wire.ParseKind(c.String("group-wire")); err != nil {
				return fmt.Errorf("--group-wire: %w", err)
			}
			if m.Config.Confine, err = confine.ParseMode(c.String("confine")); err != nil {
				return fmt.Errorf("--confine %w", err)
			}
			if m.Config.TrainerFileGiB, err = setting.Whole(c.String("trainer-file-gib")); err != nil || m.Config.TrainerFileGiB < 0 || m.Config.TrainerFileGiB > 1<<32 {
				return fmt.Errorf("--trainer-file-gib %q: give a number of GiB, or 0", c.String("trainer-file-gib"))
			}
			m.Config.DataRoots, m.Config.TrainerUser = list(c.String("data-root")), c.String("trainer-user")
			if s := c.String("addr"); s != "" {
				if m.Config.Addrs, err = client.ParseAddrs(s); err != nil {
					return fmt.Errorf("--addr: %w", err)
				}
			}
			if m.Config.Labels, err = labels(c.String("labels")); err != nil {
				return err
			}
			return m.Config.check()
		},
	}
	err = app.Run(args)
	return !ran && err == nil, err
}

// envName is the variable that a flag may also be given by.
func envName(flag string) string {
	return "ATELIER_WORKER_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// list reads a comma list without empty items.
func list(s string) []string {
	var out []string
	for x := range strings.SplitSeq(s, ",") {
		if x = strings.TrimSpace(x); x != "" {
			out = append(out, x)
		}
	}
	return out
}

// labels reads key=value,key=value.
func labels(s string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list(s) {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("--labels: %q is not of the form key=value", kv)
		}
		out[k] = v
	}
	return out, nil
}

// check looks at all that can be wrong before anything is opened, and makes paths absolute. An
// address that others can reach wants a closed cluster, or --insecure: then nothing is encrypted there.
func (c *Config) check() error {
	if !workerName.MatchString(c.Name) {
		return fmt.Errorf("--name %q: give 1 to 64 letters, digits, dots, dashes or underscores", c.Name)
	}
	if c.Data == "" {
		return errors.New("--data is needed: a folder for checkpoints, logs and pid files")
	}
	closed, err := identity.Exists(tlsFolder(c.Data))
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	closed = closed || c.Invitation != nil
	if len(c.Join) == 0 && len(c.Addrs) == 0 && !closed {
		return errors.New("give --join with an invitation or the gossip address of any node, or --addr with API addresses of coordinators")
	}
	if c.ThreadsPerSlot < 0 {
		return fmt.Errorf("--threads-per-slot %d: give 0 or more", c.ThreadsPerSlot)
	}
	if c.DrainGrace < 0 {
		return fmt.Errorf("--drain-grace %s: give 0 or more", c.DrainGrace)
	}
	for _, p := range []*string{&c.Data, &c.Shared, &c.Cache} {
		if *p != "" {
			if *p, err = filepath.Abs(*p); err != nil {
				return err
			}
		}
	}
	for i, root := range c.DataRoots {
		if c.DataRoots[i], err = filepath.Abs(root); err != nil {
			return err
		}
	}
	if c.Cache == "" {
		c.Cache = filepath.Join(c.Data, "cache")
	}
	for _, a := range []struct{ flag, addr string }{{"--listen", c.Listen}, {"--gossip", c.Gossip}} {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("%s %q: give HOST:PORT", a.flag, a.addr)
		}
		ip := net.ParseIP(host)
		if host != "localhost" && (ip == nil || !ip.IsLoopback()) && !c.Insecure && !closed {
			return fmt.Errorf("%s %s can be reached from other machines and speaks without encryption; join a closed cluster, or give --insecure to allow that", a.flag, a.addr)
		}
		if (host == "" || (ip != nil && ip.IsUnspecified())) && c.Advertise == "" {
			return fmt.Errorf("%s %s is every address of this machine; give with --advertise the host that others reach it at", a.flag, a.addr)
		}
	}
	return nil
}
