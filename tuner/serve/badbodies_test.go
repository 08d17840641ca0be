package serve_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"atelier/common/webguard"
	"atelier/tuner/serve"
)

// serveBadBodies makes the test's program a web app, so that its memory is its own.
const serveBadBodies = "ATELIER_TEST_SERVE_BAD_BODIES"

func TestMain(m *testing.M) {
	if os.Getenv(serveBadBodies) == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		var hosts webguard.Hosts
		hosts, err = webguard.NewHosts(l.Addr())
		var guard *webguard.Guard
		if err == nil {
			guard, err = serve.New(asker{func(context.Context, string, int, []byte) (int, []byte, error) { return 200, []byte("{}"), nil }}, nil, serve.DefaultLimits(),
				webguard.Config{Hosts: hosts, Token: token, Now: time.Now}, slog.New(slog.DiscardHandler))
		}
		if err == nil {
			limits := webguard.DefaultLimits(time.Minute)
			go limits.Server(guard).Serve(limits.Listener(l))
			fmt.Println(l.Addr())
			io.Copy(io.Discard, os.Stdin) // until the test ends
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// peak is the most memory that a process had resident, in bytes.
func peak(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	if !ok {
		t.Fatalf("no VmHWM in\n%s", b)
	}
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

// endless repeats its text.
type endless struct {
	text string
	at   int
	left int64
}

func (e *endless) Read(b []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(b) && int64(n) < e.left {
		c := copy(b[n:], e.text[e.at:])
		n, e.at = n+c, (e.at+c)%len(e.text)
	}
	e.left -= int64(n)
	return n, nil
}

// However bad a body is, the answer is 4xx and costs less than 64 MiB.
func TestBadBodies(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveBadBodies+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	const huge = 400 << 20
	predict := "/api/predict"
	sent := func(path, kind string, length int64, body io.Reader) string {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: %s\r\nConnection: close\r\n", path, addr, tokenText, kind)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		go func() { // it ends with the connection
			if length >= 0 {
				fmt.Fprintf(c, "%sContent-Length: %d\r\n\r\n", head, length)
				io.Copy(c, body)
				return
			}
			fmt.Fprintf(c, "%sTransfer-Encoding: chunked\r\n\r\n", head)
			piece := make([]byte, 64<<10)
			for {
				n, err := io.ReadFull(body, piece)
				if n > 0 {
					if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", n, piece[:n]); err != nil {
						return
					}
				}
				if err != nil {
					io.WriteString(c, "0\r\n\r\n")
					return
				}
			}
		}()
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Sprintf("%d %s", resp.StatusCode, b)
	}
	raw := func(text string) string {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		go io.WriteString(c, text)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(resp.StatusCode)
	}
	before := peak(t, cmd.Process.Pid)
	form := "multipart/form-data; boundary=b"
	part := "--b\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"x.png\"\r\n\r\n"
	zeros := func() io.Reader { return &endless{text: strings.Repeat("\x00", 4096), left: huge} }
	png := func() io.Reader { return io.MultiReader(bytes.NewReader(aPNG), zeros()) }
	for name, answer := range map[string]func() string{
		"a length beyond all":        func() string { return sent(predict, "image/png", 1<<40, png()) },
		"endless chunks of an image": func() string { return sent(predict, "image/png", -1, png()) },
		"endless chunks of zeros":    func() string { return sent(predict, "image/png", -1, zeros()) },
		"endless part": func() string {
			return sent(predict, form, -1, io.MultiReader(strings.NewReader(fmt.Sprintf(part, "image")), png()))
		},
		"endless other part": func() string {
			return sent(predict, form, -1, io.MultiReader(strings.NewReader(fmt.Sprintf(part, "other")), zeros()))
		},
		"endless before the first part": func() string { return sent(predict, form, -1, zeros()) },
		"endless header of a part": func() string {
			return sent(predict, form, -1, io.MultiReader(strings.NewReader("--b\r\nX: "), &endless{text: "x", left: huge}))
		},
		"endless headers of a part": func() string {
			return sent(predict, form, -1, io.MultiReader(strings.NewReader("--b\r\n"), &endless{text: "X-Y: z\r\n", left: huge}))
		},
		"endless parts": func() string {
			return sent(predict, form, -1, &endless{text: fmt.Sprintf(part, "other") + "\r\n", left: huge})
		},
		"a form without boundary": func() string { return sent(predict, "multipart/form-data", 3, strings.NewReader("abc")) },
		"a boundary too long": func() string {
			return sent(predict, "multipart/form-data; boundary="+strings.Repeat("b", 9999), 3, strings.NewReader("abc"))
		},
		"a form cut":    func() string { return sent(predict, form, -1, strings.NewReader(fmt.Sprintf(part, "image"))) },
		"an image bomb": func() string { return sent(predict, "image/gif", int64(len(bomb)), bytes.NewReader(bomb)) },
		"an image of a billion pixels": func() string {
			b := claims(1<<31-1, 1<<31-1)
			return sent(predict, "image/png", int64(len(b)), bytes.NewReader(b))
		},
		"deep JSON for an image":  func() string { return sent(predict, "application/json", -1, &endless{text: "[", left: huge}) },
		"deep JSON to sign in":    func() string { return sent("/login", "application/json", -1, &endless{text: "[", left: huge}) },
		"deep objects to sign in": func() string { return sent("/login", "application/json", -1, &endless{text: `{"once":`, left: huge}) },
		"a long text to sign in": func() string {
			return sent("/login", "application/json", -1, io.MultiReader(strings.NewReader(`{"once":"`), &endless{text: "x", left: huge}))
		},
		"a body where none is": func() string { return sent("/logout?", "text/plain", huge, zeros()) },
		"NaN":                  func() string { return sent(predict+"?top_k=NaN", "image/png", int64(len(aPNG)), bytes.NewReader(aPNG)) },
		"infinity": func() string {
			return sent(predict+"?top_k=1e999", "image/png", int64(len(aPNG)), bytes.NewReader(aPNG))
		},
		"invalid UTF-8 in the query": func() string {
			return sent(predict+"?checkpoint="+url.QueryEscape("\xff\xfe"), "image/png", int64(len(aPNG)), bytes.NewReader(aPNG))
		},
		"invalid UTF-8 in a name": func() string {
			return sent(predict, form, -1, strings.NewReader("--b\r\nContent-Disposition: form-data; name=image; filename=\"\xff.png\"\r\n\r\ntext\r\n--b--\r\n"))
		},
		"a compressed body": func() string {
			return sent(predict, "image/png\r\nContent-Encoding: gzip", -1, &endless{text: "\x1f\x8b\x08\x00", left: huge})
		},
		"chunk sizes that are no number": func() string {
			return raw("POST /login HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nNaN\r\n{}\r\n")
		},
		"a chunk size beyond all": func() string {
			return raw("POST /login HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n")
		},
		"one byte in a chunk of words": func() string {
			return raw("POST /login HTTP/1.1\r\nHost: " + addr + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+strings.Repeat("x", 4000)+"\r\n[\r\n", 10000))
		},
		"two lengths": func() string {
			return raw("POST /login HTTP/1.1\r\nHost: " + addr + "\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}")
		},
		"headers beyond all": func() string {
			return raw("GET /login HTTP/1.1\r\nHost: " + addr + "\r\n" + strings.Repeat("X-Y: "+strings.Repeat("z", 1000)+"\r\n", 10000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			was := peak(t, cmd.Process.Pid)
			if got := answer(); !strings.HasPrefix(got, "4") {
				t.Errorf("it was answered %s, not by 4xx", got)
			}
			if grown := peak(t, cmd.Process.Pid) - before; grown > 64<<20 {
				t.Errorf("memory grew to %d MiB above the start, %d of them here", grown>>20, (peak(t, cmd.Process.Pid)-was)>>20)
			}
		})
	}
	t.Logf("memory: %d MiB at the start, %d MiB at its most", before>>20, peak(t, cmd.Process.Pid)>>20)
}
