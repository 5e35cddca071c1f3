package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// The recording stands in the README between these.
const (
	recordBegin = "<!-- recorded by `make demo RECORD=README.md`; edits are lost -->\n"
	recordEnd   = "<!-- end of the recording -->\n"
)

// recorded are the commands of the show that are worth a place in the README, and how many lines
// of what they print, the last aside.
var recorded = []struct {
	command string
	lines   int
}{{"plan", 8}, {"snapshot verify", 9}, {"sed", 0}, {"status", 30}}

// recording is the part of a transcript that the README shows. Its times and numbers are those of
// that run.
func recording(transcript string) (string, error) {
	var b strings.Builder
	b.WriteString("```console\n")
	for i, r := range recorded {
		if i > 0 {
			b.WriteString("\n")
		}
		_, rest, found := strings.Cut(transcript, "\n$ nodeagent --root $ROOT "+r.command+"\n")
		command := "$ nodeagent --root $ROOT " + r.command
		if r.command == "sed" {
			var what string
			_, rest, found = strings.Cut(transcript, "\n$ sed ")
			what, rest, _ = strings.Cut(rest, "\n")
			command = "$ sed " + what
		}
		if !found {
			return "", fmt.Errorf("record: the demo has not run %s", r.command)
		}
		fmt.Fprintln(&b, command)
		if r.command == "sed" {
			mended := regexp.MustCompile(`level=WARN (msg="drift mended" step=\S+ subject=\S+) `).FindStringSubmatch(rest)
			if mended == nil {
				return "", errors.New("record: the demo has mended no drift")
			}
			fmt.Fprintf(&b, "daemon: %s ...\n", mended[1])
			continue
		}
		b.WriteString(shorten(printed(rest), r.lines))
	}
	b.WriteString("```\n")
	return b.String(), nil
}

// printed is what a command has printed: the lines that are indented, without those of the daemon.
func printed(rest string) (out []string) {
	for line := range strings.Lines(rest) {
		text, ok := strings.CutPrefix(line, "    ")
		if !ok {
			return out
		}
		if !strings.HasPrefix(text, "daemon: ") {
			out = append(out, text)
		}
	}
	return out
}

// shorten keeps the first lines and the last.
func shorten(lines []string, n int) string {
	if len(lines) <= n+1 {
		return strings.Join(lines, "")
	}
	return strings.Join(lines[:n], "") + "...\n" + lines[len(lines)-1]
}

// readRecording is what the file holds between the marks, and what is around it.
func readRecording(path string) (before, text, after string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok := strings.Cut(string(data), recordBegin)
	text, after, ok2 := strings.Cut(rest, recordEnd)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf("record: %s has not the marks of a recording", path)
	}
	return before, text, after, nil
}

// record puts the recording of a transcript into the file.
func record(path, transcript string) error {
	before, _, after, err := readRecording(path)
	if err != nil {
		return err
	}
	text, err := recording(transcript)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+recordBegin+text+recordEnd+after), 0o644) //nolint:gosec // a file of the checkout
}
