package hint

import (
	"errors"
	"net"
	"strings"
	"testing"

	"atelier/common/client"
	"atelier/tuner/data/scrape"
)

// Each case is on the page with what it looks like, which the program itself takes
// for that case, by its words or by the type of the error behind it.
func TestPage(t *testing.T) {
	typed := map[string]error{
		"no key":             scrape.ErrKey,
		"no leader":          &client.UnreachableError{Found: []client.Finding{{Kind: client.NoLeader}}},
		"no such host":       &client.UnreachableError{Found: []client.Finding{{Kind: client.Gone, Err: &net.DNSError{IsNotFound: true}}}},
		"frozen coordinator": &client.UnreachableError{Found: []client.Finding{{Kind: client.Slow}}},
		"no coordinator":     &client.UnreachableError{Found: []client.Finding{{Kind: client.Gone}}},
	}
	page := string(Markdown())
	for _, c := range cases {
		text := looks[c.Name]
		err := typed[c.Name]
		if err == nil {
			err = errors.New(text)
		}
		if found := find(err); text == "" || found == nil || found.Name != c.Name {
			t.Errorf("%s: looks like %q, for which the advice is that of %v", c.Name, text, found)
		}
		if !strings.Contains(page, "\n## "+heading(c.Name)+"\n```\n"+text+"\n```\n- ") {
			t.Errorf("%s is not on the page", c.Name)
		}
	}
	if len(looks) != len(cases) {
		t.Errorf("%d examples, %d cases", len(looks), len(cases))
	}
	for i, line := range strings.Split(page, "\n") {
		if len(line) > 120 && !strings.HasPrefix(line, "`") {
			t.Errorf("line %d has %d columns", i+1, len(line))
		}
	}
}
