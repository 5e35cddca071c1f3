package host

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const passwdFile = "/etc/passwd"

// User is a line of a host's /etc/passwd.
type User struct {
	Name     string
	UID, GID int
	Home     string // as written there; it need not exist
}

// LookupUser finds a user in the host's own /etc/passwd. Users of a directory service are not
// looked for: they are not there when the network is not. One that is not there is
// fs.ErrNotExist.
func (h *Host) LookupUser(name string) (User, error) {
	data, err := h.ReadFile(passwdFile)
	if err != nil {
		return User{}, fmt.Errorf("look up user %s: %w", name, err)
	}
	user, ok := parsePasswd(string(data), name)
	if !ok {
		return User{}, fmt.Errorf("look up user %s in %s: %w", name, passwdFile, fs.ErrNotExist)
	}
	return user, nil
}

// parsePasswd finds the first whole line of a user, as getpwnam(3) does.
func parsePasswd(text, name string) (User, bool) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(fields) != 7 || fields[0] != name || name == "" {
			continue
		}
		uid, okUID := userID(fields[2])
		gid, okGID := userID(fields[3])
		if okUID && okGID {
			return User{Name: name, UID: uid, GID: gid, Home: fields[5]}, true
		}
	}
	return User{}, false
}

// userID reads the number of a user or a group. The largest is chown's "leave it as it is".
func userID(field string) (int, bool) {
	n, err := strconv.ParseUint(field, 10, 32)
	return int(n), err == nil && n != 1<<32-1
}
