package train

import (
	"bytes"
	"io"
	"sync"
)

// sharedLog takes the standard errors of several trainers, line by line.
type sharedLog struct {
	mu sync.Mutex
	to io.Writer
}

// part is one trainer's, whose lines begin with a name.
func (l *sharedLog) part(name string) io.Writer { return &logPart{log: l, name: name} }

// logPart is used by one goroutine.
type logPart struct {
	log  *sharedLog
	name string
	rest []byte // of a line whose end has not come
}

// longestLine is what is kept of a line that does not end, in bytes.
const longestLine = 1 << 16

func (p *logPart) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	var out []byte
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte{'\n'})
		if !ok && len(p.rest) < longestLine {
			break
		}
		out = append(append(append(out, p.name...), line...), '\n')
		p.rest = rest
	}
	if out == nil {
		return len(b), nil
	}
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	_, err := p.log.to.Write(out)
	return len(b), err
}

// onceEach calls warn with each text the first time only.
func onceEach(warn func(string)) func(string) {
	var mu sync.Mutex
	known := map[string]bool{}
	return func(text string) {
		mu.Lock()
		again := known[text]
		known[text] = true
		mu.Unlock()
		if !again {
			warn(text)
		}
	}
}
