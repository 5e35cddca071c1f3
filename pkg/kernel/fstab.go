package kernel

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// swapOff stands before a line of fstab that the agent has commented out. What follows it is
// the line as it was.
const swapOff = "# swap off by nodeagent: "

// fstabLine is one line of fstab. Raw is its bytes, line end included, so that the lines of a
// file joined are the file.
type fstabLine struct {
	Raw    string
	Number int    // counts from 1
	Swap   bool   // an entry of type swap
	Ours   bool   // an entry of type swap that the agent has commented out
	Spec   string // what a swap entry names, escapes resolved: /dev/vdb1, UUID=..., /swapfile
}

// parseFstab splits fstab into lines and finds the swap entries. Nothing is an error: a line
// that means nothing to us is kept.
func parseFstab(data []byte) []fstabLine {
	var lines []fstabLine
	for raw := range bytes.Lines(data) {
		line := fstabLine{Raw: string(raw), Number: len(lines) + 1}
		if rest, ok := strings.CutPrefix(line.Raw, swapOff); ok {
			line.Spec, line.Ours = swapEntry(rest)
		} else {
			line.Spec, line.Swap = swapEntry(line.Raw)
		}
		lines = append(lines, line)
	}
	return lines
}

// swapEntry says whether a line is an entry of type swap, and of what. Fields are separated by
// blanks and tabs alone; a carriage return belongs to the line end.
func swapEntry(line string) (spec string, ok bool) {
	line = strings.TrimRight(line, "\r\n")
	fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(fields) < 3 || strings.HasPrefix(fields[0], "#") || unescapeOctal(fields[2]) != "swap" {
		return "", false
	}
	return unescapeOctal(fields[0]), true
}

// commentSwap is the file with its swap entries commented out and every other byte as it was.
func commentSwap(lines []fstabLine) []byte {
	var out bytes.Buffer
	for _, l := range lines {
		if l.Swap {
			out.WriteString(swapOff)
		}
		out.WriteString(l.Raw)
	}
	return out.Bytes()
}

// unescapeOctal resolves the escapes of fstab and /proc/swaps: a backslash and three octal
// digits are one byte. Any other backslash is itself.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if b, ok := octalAt(s, i); ok {
			out.WriteByte(b)
			i += 3
			continue
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

func octalAt(s string, i int) (byte, bool) {
	if s[i] != '\\' || i+3 >= len(s) {
		return 0, false
	}
	n := 0
	for _, c := range []byte(s[i+1 : i+4]) {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n*8 + int(c-'0')
	}
	return byte(n), n <= 0xff
}

// deviceTags are the tags of fstab that systemd knows, and where udev links the devices.
var deviceTags = map[string]string{
	"UUID": "/dev/disk/by-uuid/", "LABEL": "/dev/disk/by-label/",
	"PARTUUID": "/dev/disk/by-partuuid/", "PARTLABEL": "/dev/disk/by-partlabel/",
}

// swapPath is the path that systemd names the unit of a swap entry after: that of udev's link
// where the entry has a tag. It is "" for what is neither a tag nor a path.
func swapPath(spec string) string {
	tag, value, tagged := strings.Cut(spec, "=")
	if dir, known := deviceTags[tag]; tagged && known {
		if n := len(value); n > 1 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
			value = value[1 : n-1]
		}
		return dir + udevName(value)
	}
	if filepath.IsAbs(spec) {
		return spec
	}
	return ""
}

// udevName is a label as udev writes it into the name of a link: what is not plain is \x and
// two hexadecimal digits.
func udevName(label string) string {
	var out strings.Builder
	for i := 0; i < len(label); {
		r, size := utf8.DecodeRuneInString(label[i:])
		plain := r < utf8.RuneSelf && (r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || strings.ContainsRune("#+-.:=@_", r))
		if plain || size > 1 {
			out.WriteString(label[i : i+size])
		} else {
			fmt.Fprintf(&out, `\x%02x`, label[i])
		}
		i += size
	}
	return out.String()
}
