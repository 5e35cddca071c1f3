package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal is what is written to: how wide it is and whether it shows colors. The zero value is
// a file or a pipe: lines stay whole, and there is no color.
type terminal struct {
	width int // 0: lines are not broken
	color bool
}

// leastWidth is where breaking lines makes them harder to read, not easier.
const leastWidth = 40

// terminalOf looks at w. NO_COLOR is as in https://no-color.org.
func terminalOf(w io.Writer) terminal {
	f, ok := w.(*os.File)
	if !ok || !isTerminal(w) {
		return terminal{}
	}
	t := terminal{color: os.Getenv("NO_COLOR") == ""}
	if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
		t.width = max(int(size.Col), leastWidth)
	}
	return t
}

// paint is text in a color.
type paint string

// The colors, bold where they carry the verdict.
const (
	green  paint = "\x1b[1;32m"
	red    paint = "\x1b[1;31m"
	yellow paint = "\x1b[33m"
	faint  paint = "\x1b[2m"
)

func (t terminal) paint(p paint, text string) string {
	if !t.color {
		return text
	}
	return string(p) + text + "\x1b[0m"
}

// wrap is text as lines that fit beside an indent. A word that is too long stays whole: it is a
// path or a command, which somebody will copy.
func (t terminal) wrap(text string, indent int) []string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, t.wrapLine(strings.TrimRight(line, " \n"), indent)...)
	}
	if len(lines) == 0 {
		return []string{""}
	}
	return lines
}

func (t terminal) wrapLine(text string, indent int) []string {
	room := t.width - indent
	if t.width == 0 || utf8.RuneCountInString(text) <= room {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
