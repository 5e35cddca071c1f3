package crash

import "golang.org/x/sys/unix"

// olderChanges are the calls that this architecture has beside the newer ones of the same use.
var olderChanges = map[uint64]shape{
	unix.SYS_OPEN:      {"open", "po"},
	unix.SYS_CREAT:     {"creat", "p"},
	unix.SYS_RENAME:    {"rename", "pp"},
	unix.SYS_RENAMEAT:  {"renameat", "aa"},
	unix.SYS_UNLINK:    {"unlink", "p"},
	unix.SYS_RMDIR:     {"rmdir", "p"},
	unix.SYS_MKDIR:     {"mkdir", "p"},
	unix.SYS_MKNOD:     {"mknod", "p"},
	unix.SYS_SYMLINK:   {"symlink", "sp"},
	unix.SYS_LINK:      {"link", "pp"},
	unix.SYS_CHMOD:     {"chmod", "p"},
	unix.SYS_CHOWN:     {"chown", "p"},
	unix.SYS_LCHOWN:    {"lchown", "p"},
	unix.SYS_UTIME:     {"utime", "p"},
	unix.SYS_UTIMES:    {"utimes", "p"},
	unix.SYS_FUTIMESAT: {"futimesat", "a"},
}
