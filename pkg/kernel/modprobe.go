package kernel

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
)

// moduleBan is a line that keeps a module from being loaded.
type moduleBan struct {
	Where string // the file and its line, or the kernel's command line
	What  string // the line
	// Boot says that only loading at boot is hindered: a blacklist binds
	// systemd-modules-load, and not modprobe by name.
	Boot bool
}

// modprobeBans are the lines of modprobe.d files that hinder loading the module: blacklist, an
// install command that does nothing, an alias that leads nowhere.
func modprobeBans(files []confFile, module string) []moduleBan {
	var out []moduleBan
	for _, f := range files {
		for _, l := range modprobeLines(f.Data) {
			words := strings.Fields(l.text)
			ban := moduleBan{Where: fmt.Sprintf("%s line %d", f.Path, l.number), What: strings.Join(words, " ")}
			if len(words) < 2 || !globs(underscored(words[1]), underscored(module)) {
				continue
			}
			switch {
			case words[0] == "blacklist" && underscored(words[1]) == underscored(module):
				ban.Boot = true
			case words[0] == "install" && len(words) > 2 && slices.Contains([]string{"true", "false", ":"}, path.Base(words[2])):
			case words[0] == "alias" && len(words) > 2 && words[2] == "off":
			default:
				continue
			}
			out = append(out, ban)
		}
	}
	return out
}

type modprobeLine struct {
	text   string
	number int // of its first line, from 1
}

// modprobeLines are the lines of a modprobe.d file that say something, those that end in a
// backslash joined with the next.
func modprobeLines(data []byte) []modprobeLine {
	var out []modprobeLine
	number, goesOn := 0, false
	for raw := range bytes.Lines(data) {
		number++
		text, more := strings.CutSuffix(strings.TrimRight(string(raw), "\r\n"), `\`)
		if goesOn {
			out[len(out)-1].text += text
		} else {
			out = append(out, modprobeLine{text, number})
		}
		goesOn = more
	}
	return slices.DeleteFunc(out, func(l modprobeLine) bool {
		text := strings.TrimSpace(l.text)
		return text == "" || text[0] == '#'
	})
}

// cmdlineBans are the kernel's own: module_blacklist, which nothing gets past, and
// modprobe.blacklist, which is kmod's.
func cmdlineBans(cmdline, module string) []moduleBan {
	var out []moduleBan
	for word := range strings.FieldsSeq(cmdline) {
		key, names, _ := strings.Cut(word, "=")
		kernels := underscored(key) == "module_blacklist"
		if !kernels && key != "modprobe.blacklist" {
			continue
		}
		listed := func(name string) bool { return underscored(name) == underscored(module) }
		if slices.ContainsFunc(strings.Split(names, ","), listed) {
			out = append(out, moduleBan{Where: "the kernel's command line", What: word, Boot: !kernels})
		}
	}
	return out
}
