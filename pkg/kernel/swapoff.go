package kernel

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Swapoff is swapoff(2). It may take as long as it takes to read the area back into memory,
// and no deadline ends it.
func Swapoff(path string) error {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_SWAPOFF, uintptr(unsafe.Pointer(name)), 0, 0); errno != 0 {
		return errno
	}
	return nil
}
