package links_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"atelier/common/links"

	"golang.org/x/sys/unix"
)

// ends is a sender and the receiver at its other end.
func ends(t testing.TB) (*links.Sender, *links.Receiver) {
	t.Helper()
	a, b := pair(t)
	s, r := links.NewSender(a), links.NewReceiver(b)
	t.Cleanup(func() { s.Close(); r.Close() })
	return s, r
}

func pair(t testing.TB) (a, b *os.File) {
	t.Helper()
	a, b, err := links.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// speak checks that what is written at one end of a connection is read at the other.
func speak(t *testing.T, from io.Writer, to io.Reader) {
	t.Helper()
	sent, got := []byte("over the link"), make([]byte, 13)
	if _, err := from.Write(sent); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSocketPairIsPassed(t *testing.T) {
	s, r := ends(t)
	mine, theirs := pair(t)
	defer mine.Close()
	want := links.Header{Token: 1<<63 + 7, Member: 3, Name: "w2/cpu0", Local: true}
	if err := s.Send(want, theirs); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("what was passed is still open here: %v", err)
	}
	l, err := r.Next()
	if err != nil || l.Header != want {
		t.Fatalf("%+v, %v", l.Header, err)
	}
	u, ok := l.Conn.(*net.UnixConn)
	if !ok {
		t.Fatalf("a %T", l.Conn)
	}
	speak(t, mine, u)
	speak(t, u, mine)

	// A descriptor can go over it, and the end of one side is seen at the other.
	over := links.NewSender(mine)
	memory, _ := pair(t)
	if err := over.Send(want, memory); err != nil {
		t.Fatal(err)
	}
	u.SetReadDeadline(time.Now().Add(10 * time.Second))
	oob := make([]byte, 64)
	if _, n, _, _, err := u.ReadMsgUnix(make([]byte, 512), oob); err != nil || n == 0 {
		t.Errorf("a descriptor over the link: %d bytes, %v", n, err)
	}
	over.Close()
	if _, err := u.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the other end was closed: %v", err)
	}
}

func TestConnect(t *testing.T) {
	toA, atA := ends(t)
	toB, atB := ends(t)
	a, b := links.End{To: toA, Member: 1, Name: "w1/cpu0"}, links.End{To: toB, Member: 2, Name: "w1/cpu1"}
	if err := links.Connect(9, a, b); err != nil {
		t.Fatal(err)
	}
	l, err := atA.Next()
	if err != nil || l.Header != (links.Header{Token: 9, Member: 2, Name: "w1/cpu1", Local: true}) {
		t.Fatalf("%+v, %v", l.Header, err)
	}
	m, err := atB.Next()
	if err != nil || m.Header != (links.Header{Token: 9, Member: 1, Name: "w1/cpu0", Local: true}) {
		t.Fatalf("%+v, %v", m.Header, err)
	}
	speak(t, l.Conn, m.Conn)
	speak(t, m.Conn, l.Conn)

	atB.Close()
	if err := links.Connect(9, a, b); err == nil || !strings.Contains(err.Error(), "to member 2 (w1/cpu1)") {
		t.Errorf("to one that is gone: %v", err)
	}
	if l, err = atA.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a link to one that is gone: %v", err)
	}
	if err := links.Connect(9, b, a); err == nil || !strings.Contains(err.Error(), "to member 2 (w1/cpu1)") {
		t.Errorf("from one that is gone: %v", err)
	}
	if l, err = atA.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a link from one that is gone: %v", err)
	}
}

func TestTCPConnectionIsPassed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	near, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := far.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	far.Close()
	s, r := ends(t)
	if err := s.Send(links.Header{Member: 1}, f); err != nil {
		t.Fatal(err)
	}
	l, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := l.Conn.(*net.TCPConn); !ok {
		t.Fatalf("a %T", l.Conn)
	}
	speak(t, near, l.Conn)
}

// TestManyAtOnce: each link comes with its own header, whoever sends when.
func TestManyAtOnce(t *testing.T) {
	s, r := ends(t)
	const n = 40
	var sending sync.WaitGroup
	mine := make([]*os.File, n+1)
	for i := 1; i <= n; i++ {
		var theirs *os.File
		mine[i], theirs = pair(t)
		defer mine[i].Close()
		sending.Go(func() {
			if err := s.Send(links.Header{Member: i, Name: strings.Repeat("n", 7*i)}, theirs); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	s.Close()
	for range n {
		l, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(mine[l.Member], "%d\n", l.Member)
		var got int
		if _, err := fmt.Fscanln(l.Conn, &got); err != nil || got != l.Member || len(l.Name) != 7*got {
			t.Errorf("the link of member %d leads to %d (%v), its name has %d bytes", l.Member, got, err, len(l.Name))
		}
		l.Conn.Close()
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the sender was closed: %v", err)
	}
}

func TestTrainerThatIsGone(t *testing.T) {
	s, r := ends(t)
	r.Close()
	_, theirs := pair(t)
	if err := s.Send(links.Header{Member: 2, Name: "w1/cpu1"}, theirs); err == nil || !strings.Contains(err.Error(), "pass the link with member 2 (w1/cpu1)") {
		t.Errorf("%v", err)
	}
	if err := theirs.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a link that could not be passed is still open: %v", err)
	}
}

func TestCloseWakesNext(t *testing.T) {
	_, r := ends(t)
	woken := make(chan error, 1)
	go func() { _, err := r.Next(); woken <- err }()
	time.Sleep(10 * time.Millisecond)
	r.Close()
	select {
	case err := <-woken:
		if err != io.EOF {
			t.Errorf("Next after Close: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("Next waits still")
	}
}

func TestHeadersThatAreNotSent(t *testing.T) {
	for name, h := range map[string]links.Header{
		"no member": {}, "negative": {Member: -1}, "long name": {Member: 1, Name: strings.Repeat("x", links.MaxName+1)}, "not UTF-8": {Member: 1, Name: "\xff"},
	} {
		s, _ := ends(t)
		_, theirs := pair(t)
		if err := s.Send(h, theirs); err == nil {
			t.Errorf("%s: it was sent", name)
		}
	}
}

// message is one as bytes.
func message(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// write sends bytes with descriptors, as a host that is at fault would.
func write(t testing.TB, f *os.File, b []byte, fds ...int) {
	t.Helper()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer c.Close()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if len(b) == 0 {
		return
	}
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix(b, oob, nil); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here:", err)
	}
	return len(entries)
}

func TestMessagesThatAreRefused(t *testing.T) {
	stream, _ := pair(t)
	defer stream.Close()
	socket := int(stream.Fd())
	packets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, x := range map[string]struct {
		bytes []byte
		fds   []int
		want  string
	}{
		"nothing":         {nil, nil, "EOF"},
		"half a length":   {[]byte{0, 0}, nil, "unexpected EOF"},
		"half a header":   {message(`{"member":1}`)[:9], []int{socket}, "unexpected EOF"},
		"no header":       {[]byte{0, 0, 0, 0}, []int{socket}, "header of 0 bytes"},
		"too long":        {[]byte{0, 0, 0x10, 0x01}, []int{socket}, "header of 4097 bytes"},
		"no JSON":         {message("member 1"), []int{socket}, `"member 1"`},
		"no member":       {message("{}"), []int{socket}, "count from 1"},
		"no descriptor":   {message(`{"member":1}`), nil, "with 0 descriptors"},
		"two descriptors": {message(`{"member":1}`), []int{socket, socket}, "with 2 descriptors"},
		"nine":            {message(`{"member":1}`), []int{socket, socket, socket, socket, socket, socket, socket, socket, socket}, "too many descriptors"},
		"a file":          {message(`{"member":1}`), []int{int(file.Fd())}, "descriptor of member 1"},
		"datagrams":       {message(`{"member":1}`), []int{packets[0]}, "socket of type unixgram"},
	} {
		t.Run(name, func(t *testing.T) {
			before := open(t)
			a, b := pair(t)
			write(t, a, x.bytes, x.fds...)
			r := links.NewReceiver(b)
			_, err := r.Next()
			if err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, want %q", err, x.want)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("then: %v", again)
			}
			r.Close()
			if now := open(t); now != before {
				t.Errorf("%d descriptors open, %d before", now, before)
			}
		})
	}
}

// FuzzReceiver: whatever comes, with a socket, a link is whole and correct or
// there is an error.
func FuzzReceiver(f *testing.F) {
	f.Add([]byte{})
	f.Add(message(`{"token":1,"member":2,"name":"w1/cpu0","local":true}`))
	f.Add(append(message(`{"member":1}`), message(`{"member":2}`)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<16 {
			return // more than the socket takes at once
		}
		passed, other := pair(t)
		defer passed.Close()
		defer other.Close()
		from, to := pair(t)
		write(t, from, b, int(passed.Fd()))
		r := links.NewReceiver(to)
		defer r.Close()
		for n := 0; ; n++ {
			l, err := r.Next()
			if err != nil {
				return
			}
			if l.Member < 1 || l.Conn == nil || len(l.Name) > links.MaxName {
				t.Fatalf("%+v", l)
			}
			l.Conn.Close()
			if n > 0 {
				t.Fatal("two links of one descriptor")
			}
		}
	})
}
