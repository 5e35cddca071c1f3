package crash

import "golang.org/x/sys/unix"

// olderChanges are the calls that this architecture has beside the newer ones of the same use.
var olderChanges = map[uint64]shape{
	unix.SYS_RENAMEAT: {"renameat", "aa"},
}
