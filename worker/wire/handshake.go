package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"atelier/common/links"
)

// A link is asked for by `GET /groups/TOKEN/FROM/TO` with `Upgrade: atelier-link`
// at the agent of member TO, by that of member FROM. The answer 101 makes the
// connection the link. Without the upgrade the answer tells how the member is.
const (
	Path         = "/groups/"
	protocol     = "atelier-link"
	memberHeader = "Atelier-Member" // name of FROM, escaped as in a URL's path
)

// Limits of what is read before a connection is a link.
const (
	maxAnswer  = 4096 // bytes of an answer's head
	maxMessage = 512  // bytes of the reason in it
)

// parsePath reads the path of a request.
func parsePath(path string) (token uint64, from, to int, err error) {
	rest, ok := strings.CutPrefix(path, Path)
	part := strings.Split(rest, "/")
	if !ok || len(part) != 3 {
		return 0, 0, 0, fmt.Errorf("the path is not %sTOKEN/FROM/TO", Path)
	}
	if token, err = strconv.ParseUint(part[0], 10, 64); err != nil || token == 0 {
		return 0, 0, 0, fmt.Errorf("%.40q is not the token of a lease", part[0])
	}
	var ids [2]int
	for i, text := range part[1:] {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 1 {
			return 0, 0, 0, fmt.Errorf("%.40q is not the number of a member", text)
		}
		ids[i] = int(n)
	}
	if ids[0] == ids[1] {
		return 0, 0, 0, fmt.Errorf("member %d needs no link to itself", ids[0])
	}
	return token, ids[0], ids[1], nil
}

// parseName reads the name of the member that asks.
func parseName(h http.Header) (string, error) {
	name, err := url.PathUnescape(h.Get(memberHeader))
	if err != nil || name == "" || len(name) > links.MaxName || !utf8.ValidString(name) {
		return "", fmt.Errorf("the header %s gives no name of a member", memberHeader)
	}
	return name, nil
}

// wantsLink reports whether a request asks for the upgrade.
func wantsLink(h http.Header) bool {
	return strings.EqualFold(h.Get("Upgrade"), protocol)
}

// writeRequest asks for a link, or how a member is.
func writeRequest(w io.Writer, host string, token uint64, from Peer, to int, link bool) error {
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s%s%d/%d/%d", host, Path, token, from.ID, to), nil)
	if err != nil {
		return err
	}
	req.Header.Set(memberHeader, url.PathEscape(from.Name))
	if link {
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", protocol)
	} else {
		req.Header.Set("Connection", "close")
	}
	return req.Write(w)
}

// answer to a request.
type answer struct {
	status  int
	message string // why not, for people
}

// readAnswer reads an answer, and of 101 not a byte more: those that follow are
// the trainer's.
func readAnswer(r io.Reader) (answer, error) {
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if len(head) == maxAnswer {
			return answer{}, fmt.Errorf("its answer has a head of more than %d bytes", maxAnswer)
		}
		if _, err := io.ReadFull(r, one); errors.Is(err, io.EOF) {
			return answer{}, errors.New("it closed the connection without an answer")
		} else if err != nil {
			return answer{}, err
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), nil)
	if err != nil {
		return answer{}, fmt.Errorf("its answer is not of HTTP: %w", err)
	}
	a := answer{status: res.StatusCode}
	if a.status == http.StatusSwitchingProtocols {
		if !wantsLink(res.Header) {
			return answer{}, errors.New("it upgrades to another protocol")
		}
		return a, nil
	}
	if res, err = http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(head), r)), nil); err != nil {
		return answer{}, fmt.Errorf("its answer is not of HTTP: %w", err)
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxMessage)) // the status says enough
	a.message = strings.TrimSpace(strings.ToValidUTF8(string(text), "?"))
	return a, nil
}

// writeUpgraded answers 101.
func writeUpgraded(c net.Conn) error {
	_, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n")
	return err
}
