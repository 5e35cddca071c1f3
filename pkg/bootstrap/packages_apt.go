package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/systemd"
)

const (
	// packagesUnit runs apt and dpkg; its name is the lock: one of them runs at a time.
	packagesUnit = "nodeagent-packages.service"
	packagesLog  = "/var/log/nodeagent/packages.log"
	// maxSaid is how much of the log of one run is looked through for its errors.
	maxSaid = 256 << 10
	// lockTries is how often apt is started again that met a lock all the same.
	lockTries = 5
)

// aptEnv is what programs are told that would ask questions or restart services on the way.
var aptEnv = []string{
	"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NONINTERACTIVE_SEEN=true", "APT_LISTCHANGES_FRONTEND=none",
	"NEEDRESTART_SUSPEND=1", "NEEDRESTART_MODE=l", "UCF_FORCE_CONFFOLD=1", // Ubuntu restarts what it can
	"LANG=C.UTF-8", "LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

// aptError is a run of apt or dpkg that failed: what it said, and what can be done about it.
type aptError struct {
	ended *systemd.UnitError
	lines []string // that tell of errors
}

func (e *aptError) Error() string {
	text := e.ended.Error()
	if len(e.lines) > 0 {
		text = strings.Join(e.lines, "; ") + "; " + text
	}
	if hint := e.hint(); hint != "" {
		text += "; " + hint
	}
	return text
}

func (e *aptError) Unwrap() error { return e.ended }

// aptHints are what an operator can do about what apt says. The first that fits is told.
var aptHints = []struct {
	says *regexp.Regexp
	hint string
}{
	{
		regexp.MustCompile(`No space left|enough free space`),
		"the disk is full: make room in /var/cache/apt, /var/lib and /usr",
	},
	{
		regexp.MustCompile(`NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|not signed|signatures? (couldn't be verified|were invalid)|NODATA`),
		"the key is not the one that the repository is signed with, or the repository is changed: check packages.repository.keyFile; a key that was fetched is fetched anew once " + keyArmored + " is removed",
	},
	{
		regexp.MustCompile(`Could not resolve|(failure|error|happened) resolving|Could not connect|Cannot initiate the connection|Connection (refused|time(d )?out|failed)|Network is unreachable|Unable to connect|Could not handshake|[Cc]ertificate`),
		"the repository is not reached: check DNS, routes, the proxy (Acquire::http::Proxy in /etc/apt/apt.conf.d) and packages.repository.url",
	},
	{
		regexp.MustCompile(`Hash Sum mismatch|unexpected size|Mirror sync in progress|Undetermined Error|end of file|Could not open file`),
		"the repository is incomplete or just being changed: check it, or mirror it again",
	},
	{
		regexp.MustCompile(`404 +Not Found|does not have a Release file|File not found`),
		"the repository is not there, or not as its index says: check packages.repository.url",
	},
}

func (e *aptError) hint() string {
	for _, h := range aptHints {
		if h.says.MatchString(strings.Join(e.lines, "\n")) {
			return h.hint
		}
	}
	return ""
}

func (e *aptError) locked() bool {
	return strings.Contains(strings.Join(e.lines, "\n"), "Could not get lock") ||
		strings.Contains(strings.Join(e.lines, "\n"), "was locked by another process")
}

// run has apt or dpkg do something in the transient unit, and says whether that was one which
// had been started before. What it says of itself is an *aptError when it fails.
func (p packages) run(ctx context.Context, limit time.Duration, argv ...string) (bool, error) {
	if err := p.host.MkdirAll("/var/log/nodeagent", 0o750); err != nil {
		return false, err
	}
	for try := 1; ; try++ {
		from, err := p.logSize()
		if err != nil {
			return false, err
		}
		result, err := p.units.RunTransient(ctx, systemd.Transient{
			Unit: packagesUnit, Description: "packages of the node, installed by nodeagent",
			Argv: argv, Env: append(append([]string{}, aptEnv...), p.env...),
			LogFile: packagesLog, UMask: 0o022, Timeout: limit,
		})
		var ended *systemd.UnitError
		if !errors.As(err, &ended) {
			return result.Adopted, err
		}
		said, logErr := p.said(from)
		if logErr != nil {
			return result.Adopted, errors.Join(err, logErr)
		}
		failed := &aptError{ended: ended, lines: said}
		if result.Adopted {
			return true, nil // dpkg's state tells how that one ended
		}
		if !failed.locked() || try == lockTries {
			return false, failed
		}
		if err := awaitUnlocked(ctx, p.host); err != nil {
			return false, errors.Join(failed, err)
		}
	}
}

func (p packages) logSize() (int64, error) {
	info, err := p.host.Stat(packagesLog)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// said are the last errors in the log from an offset on.
func (p packages) said(from int64) ([]string, error) {
	f, err := p.host.Open(packagesLog)
	if err != nil {
		return nil, err
	}
	size, err := p.logSize()
	if err == nil {
		from = max(from, size-maxSaid)
		var data []byte
		if data, err = io.ReadAll(io.NewSectionReader(f, from, maxSaid)); err == nil {
			err = f.Close()
			return errorLines(string(data)), err
		}
	}
	return nil, fmt.Errorf("read what apt said: %w", errors.Join(err, f.Close()))
}

// troubles are the lines in which apt and dpkg tell of errors.
var troubles = regexp.MustCompile(`^(E: |W: .*(GPG|NO_PUBKEY|BADSIG|signature|Failed)|dpkg: error|dpkg: unrecoverable| *[a-z0-9.+-]+ : Depends: )|No space left|Could not get lock`)

// maxTroubles is how many of them an error tells; the log has them all.
const maxTroubles = 6

func errorLines(said string) []string {
	var lines []string
	seen := map[string]bool{}
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if troubles.MatchString(line) && !seen[line] {
			seen[line] = true
			lines = append(lines, line)
		}
	}
	if len(lines) > maxTroubles {
		lines = lines[len(lines)-maxTroubles:]
	}
	return lines
}
