package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"atelier/common/exit"
	"atelier/common/identity"
	"atelier/common/man"
	"atelier/common/secret"
	"atelier/common/stdio"
	"atelier/common/version"
	"atelier/coordinator/board"
	"atelier/coordinator/member"
	"atelier/tuner/sweep"
)

// Config is what flags and environment say. Addresses are HOST:PORT.
type Config struct {
	ID   string // name in the cluster; belongs to the data folder for good
	Data string // folder of log, snapshots and identity; one process at a time

	API, Raft, Gossip string // listened on; API's port 0 takes a free one
	Advertise         string // host that others reach this node at; "" = the one listened on
	AddressFile       string // where the addresses are written once they are served; "" = nowhere
	Insecure          bool   // addresses beyond loopback are allowed: nothing is encrypted or authenticated
	GossipKeyFile     string // of an open cluster; "" = its gossip is not encrypted
	TLS               bool   // the cluster that Bootstrap begins is closed

	// Counts only while the data folder holds no state: a restarted node goes on
	// with the cluster that it belongs to.
	Bootstrap  bool
	Join       []string             // gossip addresses of any nodes of the cluster
	Invitation *identity.Invitation // to a closed cluster, in place of Join

	Redis         string // address or URL, without a password once it is read; "" = leaderboards come from the state
	RedisPrefix   string // of all keys; two clusters on one Redis need two
	RedisPassword string // file

	RedisCertificates board.Certificates // for rediss://

	LeaseTTL     time.Duration // how long a run outlives the last sign of its worker
	MinFree      uint64        // bytes of free disk below which no entry is taken; 0 = from the log and the snapshots
	CompareEvery time.Duration // between comparisons of the nodes' states; 0 = never
	LeaveOnTerm  bool          // SIGTERM leaves the cluster for good; else the node is missed until it is back
	LogLevel     string        // debug, info, warn, error

	redisPassword secret.Text // read from the file, the environment or the address
	redisShown    bool        // it stands on the command line
}

// errHelp says that the person asked for help and got it.
var errHelp = errors.New("help was printed")

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func init() { cli.FlagStringer = man.Help(cli.FlagStringer) }

// env is the variable that a flag may also be given by.
func env(flag string) []string {
	return []string{"ATELIER_COORDINATOR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// ParseFlags reads the command line and checks it.
func (m *Main) ParseFlags(args []string) error {
	c := &m.Config
	ran := false
	text := func(name, value, usage string, to *string) cli.Flag {
		return &cli.StringFlag{Name: name, Value: value, Usage: usage, EnvVars: env(name), Destination: to}
	}
	yes := func(name, usage string, to *bool) cli.Flag {
		return &cli.BoolFlag{Name: name, Usage: usage, EnvVars: env(name), Destination: to}
	}
	join, minFree := "", ""
	host, _ := os.Hostname()
	app := &cli.App{
		Name:            "atelier-coordinator",
		Usage:           "a node of the replicated memory that leads sweeps and serves the API",
		Version:         version.Version,
		Description:     "Exit codes:\n" + exit.Text(exit.Coordinator, "  "),
		HideHelpCommand: true,
		Writer:          man.Terminal(m.Stderr, os.Stderr),
		ErrWriter:       m.Stderr,
		ExitErrHandler:  func(*cli.Context, error) {},
		OnUsageError:    func(_ *cli.Context, err error, _ bool) error { return err },
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "id", Value: host, DefaultText: "this machine's name", Usage: "`NAME` of this node in the cluster; never changes, and a wiped disk is a new one", EnvVars: env("id"), Destination: &c.ID},
			text("data", "", "`DIR` for the log and snapshots (required)", &c.Data),
			text("api", "127.0.0.1:7600", "`HOST:PORT` of the API; port 0 takes a free one", &c.API),
			text("raft", "127.0.0.1:7601", "`HOST:PORT` for raft", &c.Raft),
			text("gossip", "127.0.0.1:7602", "`HOST:PORT` for gossip (TCP and UDP)", &c.Gossip),
			text("advertise", "", "`HOST` that others reach this node at; needed with a wildcard address", &c.Advertise),
			yes("bootstrap", "begin a new cluster, unless the data folder has a state", &c.Bootstrap),
			text("join", "", "`INVITATION` to a closed cluster, as atelier cluster invite prints it; or gossip HOST:PORT[,..] of any node, coordinator or worker, of an open one", &join),
			text("redis", "", "`HOST:PORT` of Redis for leaderboards, or redis://USER@HOST:PORT/DB (rediss:// with TLS), or unix:///PATH of a socket; empty = the state answers", &c.Redis),
			text("redis-password-file", "", "`FILE` of mode 0600 with the password of Redis; without it ATELIER_REDIS_PASSWORD counts", &c.RedisPassword),
			text("redis-ca-file", "", "`FILE` (PEM) with the CA of Redis's certificate; empty = the system's", &c.RedisCertificates.CA),
			text("redis-cert-file", "", "`FILE` (PEM) with a certificate of this coordinator, for a Redis that wants one", &c.RedisCertificates.Cert),
			text("redis-key-file", "", "`FILE` of mode 0600 (PEM) with its key", &c.RedisCertificates.Key),
			text("redis-prefix", "atelier:", "`PREFIX` of all keys in Redis; each cluster on one Redis needs its own", &c.RedisPrefix),
			yes("insecure", "allow addresses that other machines can reach, without TLS", &c.Insecure),
			yes("tls", "with --bootstrap: begin a closed cluster, whose members know each other by certificates and encrypt everything", &c.TLS),
			text("gossip-key-file", "", "`FILE` of mode 0600 with the gossip key of an open cluster: 16, 24 or 32 bytes, raw or in hex or base64", &c.GossipKeyFile),
			text("log-level", "info", "debug, info, warn or error", &c.LogLevel),
			&cli.DurationFlag{Name: "lease-ttl", Value: 8 * time.Second, Usage: "how long a run outlives the last sign of its worker", EnvVars: env("lease-ttl"), Destination: &c.LeaseTTL},
			text("address-file", "", "`FILE` to write the addresses to (JSON) once they are served", &c.AddressFile),
			text("min-free", "", "`SIZE`, like 500MB or 1GiB, of free disk space below which the node takes no new entries; default: 2 log segments and 2 snapshots", &minFree),
			&cli.DurationFlag{Name: "compare-every", Value: 5 * time.Minute, Usage: "how often the leader lets the nodes compare their states; 0 = never", EnvVars: env("compare-every"), Destination: &c.CompareEvery},
			yes("leave-on-term", "leave the cluster for good on SIGTERM", &c.LeaveOnTerm),
			&cli.BoolFlag{Name: "man", Usage: "print the manual page", Hidden: true},
		},
		Action: func(ctx *cli.Context) error {
			if ctx.Bool("man") {
				_, err := stdio.Output().Write(man.Program(ctx.App, 8, exit.Coordinator).Bytes())
				return err
			}
			ran = true
			if ctx.NArg() > 0 {
				return fmt.Errorf("unexpected argument %q: all settings are flags", ctx.Args().First())
			}
			return nil
		},
	}
	if err := app.Run(args); err != nil {
		return err
	}
	if !ran {
		return errHelp
	}
	if identity.IsInvitation(join) {
		i, err := identity.ParseInvitation(join)
		if err != nil {
			return fmt.Errorf("--join: %w", err)
		}
		c.Invitation, join = &i, ""
	}
	for _, a := range strings.Split(join, ",") {
		if a = strings.TrimSpace(a); a != "" {
			c.Join = append(c.Join, a)
		}
	}
	if minFree != "" {
		size, err := sweep.Bytes(minFree)
		if err != nil {
			return fmt.Errorf("--min-free: %w", err)
		}
		c.MinFree = uint64(size)
	}
	if err := c.secrets(args); err != nil {
		return err
	}
	return c.check()
}

// secrets reads the password of Redis, before anything is started with it, and takes what
// may hold one out of the environment and the settings.
func (c *Config) secrets(args []string) error {
	secret.HideEnvironment()
	if c.Redis == "" {
		return nil
	}
	c.redisShown = board.Password(c.Redis) && slices.ContainsFunc(args, func(a string) bool { return strings.HasSuffix(a, c.Redis) })
	given := secret.FromEnv("ATELIER_REDIS_PASSWORD")
	if c.RedisPassword != "" {
		var err error
		if given, err = secret.FromFile(c.RedisPassword); err != nil {
			return fmt.Errorf("--redis-password-file: %w", err)
		}
	}
	try, err := board.Open(board.Options{Addr: c.Redis, Password: given, Certificates: c.RedisCertificates, Prefix: c.RedisPrefix})
	if err != nil {
		return fmt.Errorf("--redis: %w", err)
	}
	try.Close()
	addr, inside := board.Split(c.Redis)
	if c.Redis, c.redisPassword = addr, inside; given.Set() {
		c.redisPassword = given
	}
	return nil
}

// closed reports whether the node's cluster is or will be closed.
func (c *Config) closed() (bool, error) {
	if c.TLS || c.Invitation != nil {
		return true, nil
	}
	return identity.Exists(member.TLSFolder(c.Data))
}

// check looks at all that can be wrong before anything is opened. An address that others can reach
// wants a closed cluster, or --insecure: then nothing is encrypted or authenticated there.
func (c *Config) check() error {
	switch {
	case c.ID == "":
		return errors.New("--id is required: a name for this node that no other has")
	case !validID.MatchString(c.ID):
		return fmt.Errorf("--id %q: use 1 to 64 letters, digits, dots, dashes and underscores, beginning with a letter or digit", c.ID)
	case c.Data == "":
		return errors.New("--data is required: a folder on a disk that keeps what is written to it")
	case c.CompareEvery < 0:
		return fmt.Errorf("--compare-every %v: 0 or more", c.CompareEvery)
	case c.LeaseTTL < 200*time.Millisecond || c.LeaseTTL > time.Hour:
		return fmt.Errorf("--lease-ttl %v: between 200ms and 1h", c.LeaseTTL)
	}
	closed, err := c.closed()
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if closed && c.GossipKeyFile != "" {
		return errors.New("--gossip-key-file: a closed cluster makes a gossip key itself and hands it to who joins: leave it out")
	}
	for _, a := range []struct{ flag, addr string }{{"api", c.API}, {"raft", c.Raft}, {"gossip", c.Gossip}} {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("--%s %q: want HOST:PORT: %v", a.flag, a.addr, err)
		}
		ip := net.ParseIP(host)
		if host == "localhost" || ip != nil && ip.IsLoopback() {
			continue
		}
		if !c.Insecure && !closed {
			return fmt.Errorf("--%s %s: other machines can reach this address and nothing protects it: bind to 127.0.0.1, begin a closed cluster with --bootstrap --tls, or give --insecure on a network you trust", a.flag, a.addr)
		}
		if (host == "" || ip != nil && ip.IsUnspecified()) && c.Advertise == "" {
			return fmt.Errorf("--%s %s: a wildcard address needs --advertise HOST, where others reach this node", a.flag, a.addr)
		}
	}
	for _, a := range c.Join {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("--join %q: want HOST:PORT of a node's gossip: %v", a, err)
		}
	}
	if _, err := newLogger(io.Discard, c.LogLevel); err != nil {
		return err
	}
	return nil
}
