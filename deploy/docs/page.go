// Package docs reads the pages of this folder and README.md: what stands in their
// fenced blocks, and what each block says of itself. deploy/e2e runs them.
//
// The words after a fence's language say what becomes of the block. Readers of the
// page see none of them:
//
//	```sh run                  run in the page's folder; exit code 0 is wanted
//	```sh run answers="y|2"    the same; typed when the block asks, one after another
//	```sh run cluster          the same, with ATELIER_ADDR of a cluster that runs
//	```sh service machine=a    run in the background, on machine a of the page
//	```sh skip="why"           not run; that its commands parse is checked elsewhere
//	```yaml file=spec.yaml     written into the page's folder
//	```text output             lines that the block before printed, apart from figures
//	```mermaid                 a diagram
package docs

import (
	"fmt"
	"regexp"
	"strings"
)

// Block is a fenced block of a page.
type Block struct {
	Line     int    // of the opening fence, from 1
	Language string // "sh", "yaml", ...
	Words    map[string]string
	Text     string // with its last newline
}

// Use is what becomes of a block.
type Use string

// Uses of blocks.
const (
	Run     Use = "run"
	Service Use = "service"
	Skip    Use = "skip"
	File    Use = "file"
	Output  Use = "output"
	Diagram Use = "mermaid"
)

// Use returns what becomes of a block, or an error if it does not say, or says two things.
func (b Block) Use() (Use, error) {
	if b.Language == "mermaid" {
		return Diagram, nil
	}
	var uses []Use
	for _, u := range []Use{Run, Service, Skip, File, Output} {
		if _, ok := b.Words[string(u)]; ok {
			uses = append(uses, u)
		}
	}
	if len(uses) != 1 {
		return "", fmt.Errorf("line %d: want one of run, service, skip=, file=, output after the fence's language; got %q", b.Line, uses)
	}
	for word, value := range b.Words {
		switch known, ok := wordsOf[word]; {
		case !ok:
			return "", fmt.Errorf("line %d: unknown word %q", b.Line, word)
		case known && value == "":
			return "", fmt.Errorf("line %d: %s= needs a value", b.Line, word)
		}
	}
	return uses[0], nil
}

// wordsOf are the words of a fence, and whether each has a value.
var wordsOf = map[string]bool{"run": false, "service": false, "output": false, "cluster": false,
	"skip": true, "file": true, "answers": true, "machine": true}

var infoWord = regexp.MustCompile(`([a-z]+)(?:=("[^"]*"|[^\s"]+))?`)

// Blocks returns the fenced blocks of a page, in order. A fence that is not closed is an error.
func Blocks(page string) (blocks []Block, err error) {
	var b *Block
	var text strings.Builder
	for i, line := range strings.Split(page, "\n") {
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && b == nil:
			b = &Block{Line: i + 1, Words: map[string]string{}}
			text.Reset()
			language, rest, _ := strings.Cut(info, " ")
			b.Language = language
			for _, m := range infoWord.FindAllStringSubmatch(rest, -1) {
				b.Words[m[1]] = strings.Trim(m[2], `"`)
			}
		case fence:
			b.Text = text.String()
			blocks = append(blocks, *b)
			b = nil
		case b != nil:
			text.WriteString(line + "\n")
		}
	}
	if b != nil {
		return nil, fmt.Errorf("line %d: the fence is not closed", b.Line)
	}
	return blocks, nil
}
