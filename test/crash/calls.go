package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// shape says what a call that changes the machine is called and what its arguments are, a
// letter each, as far as they matter:
//
//	p  a path               a  a directory's descriptor and a path: two arguments
//	f  a descriptor         w  a descriptor: the call counts only if it is no pipe or the like
//	s  a string             o  flags of open: the call counts only if they create or cut
//	-  of no interest       h  a pointer to flags of open
type shape struct{ name, args string }

// changes are the calls that count, on every architecture.
var changes = map[uint64]shape{
	unix.SYS_OPENAT:          {"openat", "ao"},
	unix.SYS_OPENAT2:         {"openat2", "ah"},
	unix.SYS_WRITE:           {"write", "w"},
	unix.SYS_WRITEV:          {"writev", "w"},
	unix.SYS_PWRITE64:        {"pwrite64", "w"},
	unix.SYS_PWRITEV:         {"pwritev", "w"},
	unix.SYS_PWRITEV2:        {"pwritev2", "w"},
	unix.SYS_SENDFILE:        {"sendfile", "w"},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", "--w"},
	unix.SYS_SPLICE:          {"splice", "--w"},
	unix.SYS_TRUNCATE:        {"truncate", "p"},
	unix.SYS_FTRUNCATE:       {"ftruncate", "f"},
	unix.SYS_FALLOCATE:       {"fallocate", "f"},
	unix.SYS_RENAMEAT2:       {"renameat2", "aa"},
	unix.SYS_UNLINKAT:        {"unlinkat", "a"},
	unix.SYS_MKDIRAT:         {"mkdirat", "a"},
	unix.SYS_MKNODAT:         {"mknodat", "a"},
	unix.SYS_SYMLINKAT:       {"symlinkat", "sa"},
	unix.SYS_LINKAT:          {"linkat", "aa"},
	unix.SYS_FCHMOD:          {"fchmod", "f"},
	unix.SYS_FCHMODAT:        {"fchmodat", "a"},
	unix.SYS_FCHMODAT2:       {"fchmodat2", "a"},
	unix.SYS_FCHOWN:          {"fchown", "f"},
	unix.SYS_FCHOWNAT:        {"fchownat", "a"},
	unix.SYS_UTIMENSAT:       {"utimensat", "a"},
	unix.SYS_SETXATTR:        {"setxattr", "p"},
	unix.SYS_LSETXATTR:       {"lsetxattr", "p"},
	unix.SYS_FSETXATTR:       {"fsetxattr", "f"},
	unix.SYS_REMOVEXATTR:     {"removexattr", "p"},
	unix.SYS_LREMOVEXATTR:    {"lremovexattr", "p"},
	unix.SYS_FREMOVEXATTR:    {"fremovexattr", "f"},
	unix.SYS_MOUNT:           {"mount", "sp"},
	unix.SYS_MOVE_MOUNT:      {"move_mount", "aa"},
	unix.SYS_UMOUNT2:         {"umount2", "p"},
	unix.SYS_PIVOT_ROOT:      {"pivot_root", "pp"},
	unix.SYS_SWAPON:          {"swapon", "p"},
	unix.SYS_SWAPOFF:         {"swapoff", "p"},
	unix.SYS_INIT_MODULE:     {"init_module", ""},
	unix.SYS_FINIT_MODULE:    {"finit_module", "f"},
	unix.SYS_DELETE_MODULE:   {"delete_module", "s"},
	unix.SYS_SETHOSTNAME:     {"sethostname", "s"},
	unix.SYS_CLOCK_SETTIME:   {"clock_settime", ""},
	unix.SYS_SETTIMEOFDAY:    {"settimeofday", ""},
	unix.SYS_REBOOT:          {"reboot", ""},
}

// syncs are the calls that make changes durable. They do not count.
var syncs = map[uint64]shape{
	unix.SYS_FSYNC:     {"fsync", "f"},
	unix.SYS_FDATASYNC: {"fdatasync", "f"},
}

// Call is one call that a program made.
type Call struct {
	Name   string
	Paths  []string // absolute, but for the target of a link
	Failed bool
}

func (c Call) String() string { return strings.TrimSpace(c.Name + " " + strings.Join(c.Paths, ", ")) }

// describe says what the call is that a thread is about to make, and whether it counts. A call
// that is of no interest has no name.
func describe(tid int, c call) (described Call, counts bool) {
	s, counts := changes[c.Number]
	if !counts {
		s, counts = olderChanges[c.Number]
	}
	if !counts {
		s = syncs[c.Number]
	}
	described.Name = s.name
	i := 0
	for _, kind := range s.args {
		arg := c.Args[i]
		i++
		switch kind {
		case 'p':
			described.Paths = append(described.Paths, absolute(tid, unix.AT_FDCWD, str(tid, arg)))
		case 'a':
			described.Paths = append(described.Paths, absolute(tid, int(int32(arg)), str(tid, c.Args[i])))
			i++
		case 's':
			described.Paths = append(described.Paths, str(tid, arg))
		case 'f', 'w':
			file := descriptor(tid, int(int32(arg)))
			if kind == 'w' && !keeps(file) {
				return Call{}, false
			}
			described.Paths = append(described.Paths, target(file))
		case 'o', 'h':
			flags := arg
			if kind == 'h' {
				flags = binary.NativeEndian.Uint64(append(read(tid, arg, 8), make([]byte, 8)...))
			}
			if flags&(unix.O_CREAT|unix.O_TRUNC) == 0 { // O_TMPFILE makes nothing that a crash leaves
				return Call{}, false
			}
		}
	}
	return described, counts
}

// descriptor is the link by which /proc shows what a thread's descriptor is open to.
func descriptor(tid, fd int) string {
	return fmt.Sprintf("/proc/%d/fd/%d", tid, fd)
}

// keeps says whether what is written to a file stays: it is a regular one with a name, or a disk.
func keeps(file string) bool {
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil {
		return false
	}
	kind := stat.Mode & unix.S_IFMT // of an eventfd it is 0, which os.FileMode takes for a file's
	return kind == unix.S_IFREG && stat.Nlink > 0 || kind == unix.S_IFBLK
}

func target(link string) string {
	path, err := os.Readlink(link)
	if err != nil {
		return "?"
	}
	return path
}

// absolute is where a path leads that a thread gives with a directory's descriptor. Without a
// path it is the descriptor itself.
func absolute(tid, dir int, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	base := descriptor(tid, dir)
	if dir == unix.AT_FDCWD {
		base = "/proc/" + strconv.Itoa(tid) + "/cwd"
	}
	return filepath.Join(target(base), path)
}

// str is the string at an address of a thread's memory.
func str(tid int, addr uint64) string {
	if addr == 0 {
		return ""
	}
	var out []byte
	const page = 4096
	for len(out) < unix.PathMax {
		// Page by page: the next one may not be there.
		part := read(tid, addr, int(page-addr%page))
		if last, _, found := bytes.Cut(part, []byte{0}); found {
			return string(append(out, last...))
		}
		if len(part) == 0 {
			break
		}
		out, addr = append(out, part...), addr+uint64(len(part))
	}
	return string(out)
}

func read(tid int, addr uint64, n int) []byte {
	buf := make([]byte, n)
	local := []unix.Iovec{{Base: &buf[0]}}
	local[0].SetLen(n)
	n, err := unix.ProcessVMReadv(tid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return buf[:n]
}
