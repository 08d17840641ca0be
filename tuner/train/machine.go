package train

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"atelier/common/version"
)

// fact is a line of the diagnostics.
type fact struct{ name, text string }

// machine tells what the training ran on.
func machine(p *Plan, trainer string) []fact {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	facts := []fact{{"host", host}, {"system", runtime.GOOS + "/" + runtime.GOARCH}}
	if cpu := lineOf("/proc/cpuinfo", "model name"); cpu != "" {
		facts = append(facts, fact{"processor", cpu})
	}
	facts = append(facts, fact{"cores", fmt.Sprint(runtime.NumCPU())})
	if memory := lineOf("/proc/meminfo", "MemTotal"); memory != "" {
		facts = append(facts, fact{"memory", inGiB(memory)})
	}
	if n := p.Members(); n > 1 {
		facts = append(facts, fact{"members", fmt.Sprintf("%d, of %s each", n, ofThreads(p.Settings.ShardThreads))}, fact{"devices", strings.Join(p.devices, ", ")})
	} else {
		facts = append(facts, fact{"device", p.Device}, fact{"threads", fmt.Sprint(p.TrainerThreads())})
	}
	if trainer != "" {
		facts = append(facts, fact{"trainer", trainer})
	}
	return append(facts, fact{"atelier", version.Version})
}

// inGiB is a number of the kernel's kibibytes for people.
func inGiB(text string) string {
	kib, err := strconv.ParseFloat(strings.TrimSuffix(text, " kB"), 64)
	if err != nil {
		return text
	}
	return fmt.Sprintf("%.1f GiB", kib/(1<<20))
}

// lineOf is what stands behind "name :" in one of the kernel's files.
func lineOf(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
