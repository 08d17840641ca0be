package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"atelier/common/local"
	"atelier/deploy/docs"
)

// pageSession is one run of all blocks of a page, in order, as one session of a shell
// on a terminal of 80 columns, in a folder that looks like a fresh clone.
type pageSession struct {
	t      *testing.T
	blocks []docs.Block
	dir    string
	// replace turns addresses and folders of the page into those of the test.
	replace func(machine, text string) string

	mu    sync.Mutex
	shown strings.Builder // everything that came to the terminal
}

// Marks between blocks on the terminal, and behind all; no program prints them.
const blockBegins, blockEnds, allShown = "\x1e<", "\x1e>", "\x1e."

// playPage runs a page; blocks that need a cluster get the one given.
func playPage(t *testing.T, name string, cluster *local.Cluster, limit time.Duration, replace func(machine, text string) string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	must(t, err)
	blocks, err := docs.Blocks(string(text))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	p := &pageSession{t: t, blocks: blocks, dir: freshClone(t), replace: replace}
	p.play(ctx, cluster)
}

// freshClone is a folder with bin/ and what the pages name of the repository.
func freshClone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	root, err := filepath.Abs("../..")
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(dir, "bin"), 0o755))
	for name, from := range map[string]string{"atelier": bin, "atelier-coordinator": bin, "atelier-worker": bin,
		"atelier-trainer": filepath.Join(root, "bin"), "libcgotorch.so": filepath.Join(root, "bin")} {
		from = filepath.Join(from, name)
		to := filepath.Join(dir, "bin", name)
		if _, err := os.Stat(from); err != nil {
			continue // pages that train ask for the trainer by torch
		}
		// Not a link to the file: a program looks for others beside itself.
		if os.Link(from, to) != nil {
			text, err := os.ReadFile(from)
			must(t, err)
			must(t, os.WriteFile(to, text, 0o755))
		}
	}
	must(t, os.Symlink(filepath.Join(root, "deploy"), filepath.Join(dir, "deploy")))
	return dir
}

// script writes one file per block that is run, and the one that runs them all.
func (p *pageSession) script(cluster *local.Cluster) string {
	blocks := filepath.Join(p.dir, ".blocks")
	must(p.t, os.Mkdir(blocks, 0o755))
	var b strings.Builder
	// The pages' make targets build and test everything; here they must exist.
	root, err := filepath.Abs("../..")
	must(p.t, err)
	fmt.Fprintf(&b, "make() { command make -n -C %q \"$@\" > /dev/null; }\n", root)
	b.WriteString("trap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n")
	for i, block := range p.blocks {
		use, err := block.Use()
		must(p.t, err)
		text := block.Text
		if p.replace != nil {
			text = p.replace(block.Words["machine"], text)
		}
		file := filepath.Join(blocks, fmt.Sprintf("%d.sh", i))
		switch use {
		case docs.File:
			fmt.Fprintf(&b, "mkdir -p \"$(dirname %[1]q)\"; cp %[2]q %[1]q\n", block.Words["file"], file)
		case docs.Run:
			if _, ok := block.Words["cluster"]; ok {
				if cluster == nil {
					p.t.Fatalf("line %d: the page's test starts no cluster", block.Line)
				}
				fmt.Fprintf(&b, "export ATELIER_ADDR=%s\n", strings.Join(cluster.APIAddrs(), ","))
			}
			fmt.Fprintf(&b, "printf '%s%d\\n'; source %q; printf '%s%d\\n'\n", blockBegins, i, file, blockEnds, i)
		case docs.Service:
			fmt.Fprintf(&b, "source %q > %q 2>&1 < /dev/null &\n", file, filepath.Join(blocks, fmt.Sprintf("%d.log", i)))
		default:
			continue
		}
		must(p.t, os.WriteFile(file, []byte(text), 0o644))
	}
	all := filepath.Join(blocks, "all.sh")
	must(p.t, os.WriteFile(all, []byte(b.String()), 0o644))
	return all
}

// environment is that of a person who has just logged in, without a network: nothing is
// downloaded, and a training starts from scratch.
func (p *pageSession) environment() (env []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ATELIER_") && !strings.HasPrefix(v, "XDG_") && !strings.HasPrefix(v, "COLUMNS=") {
			env = append(env, v)
		}
	}
	home := filepath.Join(p.dir, ".home")
	must(p.t, os.MkdirAll(home, 0o755))
	env = append(env, "HOME="+home, "TERM=xterm", "HTTPS_PROXY=http://127.0.0.1:1", "PATH="+filepath.Join(p.dir, "bin")+":"+os.Getenv("PATH"))
	if p.replace != nil { // defaults of the programs move as the addresses in the text do
		for _, v := range []string{"COORDINATOR_API=127.0.0.1:7600", "COORDINATOR_RAFT=127.0.0.1:7601", "COORDINATOR_GOSSIP=127.0.0.1:7602",
			"WORKER_SLOTS=8", "WORKER_LISTEN=127.0.0.1:7610", "WORKER_GOSSIP=127.0.0.1:7612"} {
			env = append(env, "ATELIER_"+p.replace("", v))
		}
	}
	return env
}

func (p *pageSession) play(ctx context.Context, cluster *local.Cluster) {
	person, program := terminal(p.t, 80)
	cmd := exec.CommandContext(ctx, "bash", "-e", "-o", "pipefail", p.script(cluster))
	cmd.Dir, cmd.Env = p.dir, p.environment()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	must(p.t, cmd.Start())
	defer syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	go p.read(person)
	done := make(chan struct{})
	go p.answer(person, done)
	err := cmd.Wait()
	close(done)
	fmt.Fprint(program, allShown) // behind what is still between the terminal's ends
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		p.mu.Lock()
		all := strings.HasSuffix(p.shown.String(), allShown)
		p.mu.Unlock()
		if all {
			break
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.fail(err)
		return
	}
	p.compare()
}

func (p *pageSession) read(person *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := person.Read(b)
		p.mu.Lock()
		p.shown.Write(b[:n])
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// asks is the end of the terminal's text while a program waits for an answer.
var asks = regexp.MustCompile(`[:?] $`)

// answer types what a block's answers say, one at a time, whenever a program asks.
func (p *pageSession) answer(person *os.File, done chan struct{}) {
	given := map[int]int{}
	answered := 0 // length of what was shown at the last answer
	for {
		select {
		case <-done:
			return
		case <-time.After(20 * time.Millisecond):
		}
		p.mu.Lock()
		all := p.shown.String()
		p.mu.Unlock()
		at := strings.LastIndex(all, blockBegins)
		if at < 0 || len(all) == answered || !asks.MatchString(all) {
			continue
		}
		var block int
		if _, err := fmt.Sscanf(all[at+len(blockBegins):], "%d", &block); err != nil {
			continue
		}
		text := "\n" // a question that the page does not announce gets its default; the output shows it
		if answers := strings.Split(p.blocks[block].Words["answers"], "|"); given[block] < len(answers) {
			text = answers[given[block]] + "\n"
		}
		given[block]++
		answered = len(all)
		person.WriteString(text)
	}
}

// fail reports the block in which the session ended.
func (p *pageSession) fail(err error) {
	all := p.shown.String()
	at := strings.LastIndex(all, blockBegins)
	if at < 0 {
		p.t.Fatalf("%v before the first block:\n%s", err, all)
	}
	var block int
	fmt.Sscanf(all[at+len(blockBegins):], "%d", &block)
	p.t.Errorf("line %d: %v\n%s\n%s", p.blocks[block].Line, err, p.blocks[block].Text, strings.Join(screen(all[at+len(blockBegins):]), "\n"))
	logs, _ := filepath.Glob(filepath.Join(p.dir, ".blocks", "*.log"))
	for _, log := range logs {
		text, _ := os.ReadFile(log)
		p.t.Logf("-- %s\n%s", filepath.Base(log), text[max(0, len(text)-3000):])
	}
}

// compare looks for the lines of each block of output in what the block before it printed.
func (p *pageSession) compare() {
	all := p.shown.String()
	if os.Getenv("SHOW_PAGES") != "" { // to be read, or copied into the page
		p.t.Log(strings.Join(screen(all), "\n"))
	}
	for i, block := range p.blocks {
		use, err := block.Use()
		must(p.t, err)
		if use != docs.Output {
			continue
		}
		_, rest, _ := strings.Cut(all, fmt.Sprintf("%s%d\r\n", blockBegins, i-1))
		own, _, ok := strings.Cut(rest, fmt.Sprintf("%s%d\r\n", blockEnds, i-1))
		if !ok {
			p.t.Errorf("line %d: the block before this one was not run", block.Line)
			continue
		}
		lines := screen(own)
		at := 0
		for _, want := range strings.Split(strings.TrimRight(block.Text, "\n"), "\n") {
			if len(want) > 80 {
				p.t.Errorf("line %d: wider than 80 columns: %s", block.Line, want)
			}
			if strings.TrimSpace(want) == "..." {
				continue
			}
			from := at
			for at < len(lines) && figureless(lines[at]) != figureless(want) {
				at++
			}
			if at == len(lines) {
				p.t.Errorf("line %d: not printed: %s\n-- in\n%s", block.Line, want, strings.Join(lines[from:], "\n"))
				return
			}
			at++
		}
	}
}

var (
	sweepID  = regexp.MustCompile(`\bs-[a-z0-9]{8}\b`)
	duration = regexp.MustCompile(`(\b(about|under|over) )?\b\d+(\.\d+)?( ?(ms|s|min|m|h)\b)( ?\d+(\.\d+)? ?(ms|s|min|m|h)\b)*`)
	figure   = regexp.MustCompile(`[-+]?\d[\d.,]*(e[-+]?\d+)?`)
	drawn    = regexp.MustCompile(`[#-]{5,}|[▁-█]+`)
	blanks   = regexp.MustCompile(`\s+`)
)

// figureless is a line without what differs between machines and runs.
func figureless(line string) string {
	line = sweepID.ReplaceAllString(line, "s-ID")
	line = duration.ReplaceAllString(line, "TIME")
	line = figure.ReplaceAllString(line, "0")
	line = drawn.ReplaceAllString(line, "BAR")
	return strings.TrimSpace(blanks.ReplaceAllString(line, " "))
}

var colour = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// screen is what stays on a terminal of what was written to it: lines that were
// redrawn as they were last.
func screen(text string) (lines []string) {
	for _, line := range strings.Split(colour.ReplaceAllString(text, ""), "\n") {
		now := ""
		for _, part := range strings.Split(strings.TrimSuffix(line, "\r"), "\r") {
			if rest, ok := strings.CutPrefix(part, "\x1b[K"); ok {
				now = rest
			} else if len(part) >= len(now) {
				now = part
			} else {
				now = part + now[len(part):]
			}
		}
		lines = append(lines, strings.TrimRight(strings.ReplaceAll(now, "\x1b[K", ""), " "))
	}
	return lines
}

// machines is the replacement for a page about several machines, named a, b, c and
// w1: each has a loopback address of its own, so that the programs' ports are free.
func machines(t *testing.T, dir, redis string) func(machine, text string) string {
	net := fmt.Sprintf("127.%d.%d.", 2+os.Getpid()%250, 1+time.Now().UnixNano()%250)
	ips := map[string]string{"": net + "9", "a": net + "1", "b": net + "2", "c": net + "3", "w1": net + "4"}
	host := regexp.MustCompile(`\b(a|b|c|w1)(:76\d\d)`)
	advertised := regexp.MustCompile(`(--advertise |ADVERTISE=)(a|b|c|w1)\b`)
	return func(machine, text string) string {
		text = host.ReplaceAllStringFunc(text, func(s string) string {
			name, port, _ := strings.Cut(s, ":")
			return ips[name] + ":" + port
		})
		text = advertised.ReplaceAllStringFunc(text, func(s string) string {
			m := advertised.FindStringSubmatch(s)
			return m[1] + ips[m[2]]
		})
		return strings.NewReplacer("0.0.0.0", ips[machine], "redis-host:6379", redis,
			"/var/lib/atelier", filepath.Join(dir, machine), "/mnt/checkpoints", filepath.Join(dir, "checkpoints")).Replace(text)
	}
}

// Three coordinators and a worker, each on an address of its own, started by the
// commands of the page.
func TestPageMachines(t *testing.T) {
	t.Parallel()
	redis := "127.0.0.1:1" // away: the state answers
	if _, err := exec.LookPath("redis-server"); err == nil {
		r, err := local.StartRedis(t.Context(), t.TempDir(), false)
		must(t, err)
		t.Cleanup(func() { r.Kill() })
		redis = r.Addr
	}
	playPage(t, "deploy/docs/machines.md", nil, 2*time.Minute, machines(t, t.TempDir(), redis))
}

// The first page, as a newcomer goes through it.
func TestPageReadme(t *testing.T) {
	torch(t)
	t.Parallel()
	dir := t.TempDir()
	playPage(t, "README.md", nil, 6*time.Minute, func(_, text string) string {
		return strings.ReplaceAll(machines(t, dir, "")("", text), "127.0.0.1:", "127.0.3.1:")
	})
}

func TestPageWorkflow(t *testing.T) {
	torch(t)
	t.Parallel()
	playPage(t, "deploy/docs/workflow.md", nil, 6*time.Minute, nil)
}

// A training by several members, alone and on a cluster of two workers.
func TestPageDistributed(t *testing.T) {
	flags := torch(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cluster := start(t, ctx, local.Config{Coordinators: 1, Workers: 2, ThreadsPerSlot: 1, ExtraArgs: map[string][]string{"worker": flags}})
	playPage(t, "deploy/docs/distributed.md", cluster, 4*time.Minute, nil)
}

// simulated is a cluster for pages that need one.
func simulated(t *testing.T) *local.Cluster {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return start(t, ctx, local.Config{Coordinators: 1, Workers: 1, SlotsPerWorker: 8})
}

func TestPageExternal(t *testing.T) {
	playPage(t, "deploy/docs/external.md", simulated(t), 2*time.Minute, nil)
}

func TestPageAPI(t *testing.T) {
	playPage(t, "deploy/docs/api.md", simulated(t), 2*time.Minute, nil)
}

func TestPagePython(t *testing.T) {
	playPage(t, "deploy/docs/python.md", simulated(t), 2*time.Minute, nil)
}

func TestPageOperate(t *testing.T) {
	t.Parallel()
	playPage(t, "deploy/docs/operate.md", nil, 2*time.Minute, machines(t, t.TempDir(), ""))
}

func TestScreen(t *testing.T) {
	got := screen("epoch 1\r\x1b[Kepoch 2\r\x1b[K\x1b[1mdone\x1b[0m\r\nabc\rx\r\n")
	if want := "done|xbc|"; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
	for line, want := range map[string]string{
		"epoch 3/10  train_loss 0.4123  1m 3s": "epoch 0/0 train_loss 0 TIME",
		"epoch 10/10 train_loss 1.2  42 s":     "epoch 0/0 train_loss 0 TIME",
		"sweep s-k3v9q2ma [####----]":          "sweep s-ID [BAR]",
	} {
		if got := figureless(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
