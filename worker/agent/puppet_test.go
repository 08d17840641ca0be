package agent_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"atelier/common/links"
	"atelier/common/trainerproto"
)

// A puppet is a trainer that knows groups and does what a test asks of it: it hands
// on its job, links and control lines over a socket, and sends the events it is given.

// fromPuppet is a line from it: the first has the job, the others one of the rest.
type fromPuppet struct {
	PID     int                   `json:"pid,omitempty"`
	Job     *trainerproto.Job     `json:"job,omitempty"`
	Link    *links.Header         `json:"link,omitempty"`
	Ended   int                   `json:"ended,omitempty"` // member whose link ended
	Heard   string                `json:"heard,omitempty"` // over a link
	Control *trainerproto.Control `json:"control,omitempty"`
}

// toPuppet is a line to it.
type toPuppet struct {
	Event *trainerproto.Event `json:"event,omitempty"`
	Say   string              `json:"say,omitempty"` // over all links
	Exit  bool                `json:"exit,omitempty"`
}

// puppetMain is the process; silent: it sends no sign of life.
func puppetMain(mode string) {
	events := trainerproto.NewWriter(os.NewFile(trainerproto.EventsFD, "events"))
	hello := trainerproto.Event{Kind: trainerproto.EventHello, Protocol: trainerproto.Version, Name: "puppet", Groups: trainerproto.GroupVersion}
	if mode == "alone" {
		hello.Groups = 0
	}
	events.Send(hello)
	in := trainerproto.NewReader(os.Stdin)
	job, err := in.Job()
	if err != nil {
		return
	}
	var set struct{ Strings string }
	json.Unmarshal(job.Training, &set)
	conn, err := net.Dial("unix", set.Strings)
	if err != nil {
		os.Exit(3)
	}
	lines := trainerproto.NewWriter(conn)
	lines.Send(fromPuppet{PID: os.Getpid(), Job: &job})
	var mu sync.Mutex
	var all []net.Conn
	go func() {
		receiver := links.NewReceiver(os.NewFile(trainerproto.LinksFD, "links"))
		for {
			l, err := receiver.Next()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, l.Conn)
			mu.Unlock()
			lines.Send(fromPuppet{Link: &l.Header})
			go func() {
				b := make([]byte, 256)
				for {
					n, err := l.Conn.Read(b)
					if err != nil {
						lines.Send(fromPuppet{Ended: l.Member})
						return
					}
					lines.Send(fromPuppet{Heard: string(b[:n])})
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := in.Control()
			if err != nil {
				os.Exit(4)
			}
			lines.Send(fromPuppet{Control: &c})
		}
	}()
	go func() {
		for {
			events.Send(trainerproto.Event{Kind: trainerproto.EventAlive})
			time.Sleep(trainerproto.AlivePause)
		}
	}()
	for d := json.NewDecoder(conn); ; {
		var to toPuppet
		switch err := d.Decode(&to); {
		case err != nil, to.Exit:
			os.Exit(0)
		case to.Event != nil:
			events.Send(*to.Event)
		case to.Say != "":
			mu.Lock()
			for _, c := range all {
				c.Write([]byte(to.Say))
			}
			mu.Unlock()
		}
	}
}

// puppet is the test's end.
type puppet struct {
	t    *testing.T
	pid  int
	job  trainerproto.Job
	conn *json.Encoder

	mu      sync.Mutex
	changed chan struct{}
	got     []fromPuppet
	gone    bool
}

// stage is where puppets report.
type stage struct {
	t       *testing.T
	path    string
	mu      sync.Mutex
	changed chan struct{}
	members map[int]*puppet
}

func newStage(t *testing.T) *stage {
	dir, err := os.MkdirTemp("", "stage") // short: a socket's path has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, path: filepath.Join(dir, "s"), changed: make(chan struct{}), members: map[int]*puppet{}}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); os.RemoveAll(dir) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *stage) training() string {
	b, _ := json.Marshal(map[string]string{"strings": s.path})
	return string(b)
}

func (s *stage) serve(c net.Conn) {
	d := json.NewDecoder(c)
	var first fromPuppet
	if d.Decode(&first) != nil || first.Job == nil {
		return
	}
	p := &puppet{t: s.t, pid: first.PID, job: *first.Job, conn: json.NewEncoder(c), changed: make(chan struct{})}
	s.mu.Lock()
	member := 0
	if g := p.job.Group; g != nil {
		member = g.Member
	}
	s.members[member] = p
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	for {
		var m fromPuppet
		err := d.Decode(&m)
		p.mu.Lock()
		if err != nil {
			p.gone = true
		} else {
			p.got = append(p.got, m)
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

const patience = 30 * time.Second // a loaded machine is slow, not wrong

// member waits for a member's puppet to have its job.
func (s *stage) member(id int) *puppet {
	s.t.Helper()
	for deadline := time.After(patience); ; {
		s.mu.Lock()
		p, changed := s.members[id], s.changed
		s.mu.Unlock()
		if p != nil {
			return p
		}
		select {
		case <-changed:
		case <-deadline:
			s.t.Fatalf("member %d got no job", id)
		}
	}
}

// until waits for a line that the puppet has handed on.
func (p *puppet) until(what string, f func(fromPuppet) bool) fromPuppet {
	p.t.Helper()
	for deadline := time.After(patience); ; {
		p.mu.Lock()
		got, changed := p.got, p.changed
		p.mu.Unlock()
		for _, m := range got {
			if f(m) {
				return m
			}
		}
		select {
		case <-changed:
		case <-deadline:
			p.t.Fatalf("never: %s; it handed on %+v", what, got)
		}
	}
}

func (p *puppet) linked(to int) links.Header {
	p.t.Helper()
	return *p.until("a link", func(m fromPuppet) bool { return m.Link != nil && m.Link.Member == to }).Link
}

func (p *puppet) linkEnded(to int) {
	p.t.Helper()
	p.until("a link ends", func(m fromPuppet) bool { return m.Ended == to })
}

func (p *puppet) told(want trainerproto.Control) {
	p.t.Helper()
	p.until("a control line", func(m fromPuppet) bool { return m.Control != nil && *m.Control == want })
}

// wasTold reports whether it was sent a verdict.
func (p *puppet) wasTold(verdict string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.got {
		if m.Control != nil && m.Control.Verdict == verdict {
			return true
		}
	}
	return false
}

func (p *puppet) send(e trainerproto.Event) { p.conn.Encode(toPuppet{Event: &e}) }
func (p *puppet) say(text string)           { p.conn.Encode(toPuppet{Say: text}) }

// view has it report who trains together.
func (p *puppet) view(number int, members ...int) {
	p.send(trainerproto.Event{Kind: trainerproto.EventView, View: &trainerproto.View{Number: number, Members: members, Step: 7, Reason: "start", Pause: 0.25}})
}

func (p *puppet) done(reason string) {
	p.send(trainerproto.Event{Kind: trainerproto.EventDone, Reason: reason})
	p.conn.Encode(toPuppet{Exit: true})
}

func (p *puppet) failed(class, message string) {
	p.send(trainerproto.Event{Kind: trainerproto.EventFailed, Class: class, Message: message})
	p.conn.Encode(toPuppet{Exit: true})
}
