package etcdbackup

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// How an upload ends, in a word.
const (
	UploadDone        = "uploaded"
	UploadRefused     = "refused"     // nobody listens, or there is no way there
	UploadTimeout     = "timeout"     // it does not answer
	UploadDenied      = "denied"      // keys or rights are missing, or it is read-only
	UploadNoStore     = "no-store"    // no such bucket, or the share is not mounted
	UploadFull        = "full"        // it has no room
	UploadDamaged     = "damaged"     // a backup in the spool
	UploadInterrupted = "interrupted" // on this host
	UploadError       = "error"       // anything else
)

// UploadReasons are all that UploadReason returns, the good one first.
func UploadReasons() []string {
	return []string{
		UploadDone, UploadRefused, UploadTimeout, UploadDenied, UploadNoStore, UploadFull, UploadDamaged,
		UploadInterrupted, UploadError,
	}
}

// ofTheStore says that an object could not be read since its store is gone, or the way there: the same may
// be read the next time, and says nothing of the object.
func ofTheStore(err error) bool {
	var network *net.OpError
	switch UploadReason(err) {
	case UploadRefused, UploadTimeout, UploadNoStore:
		return true
	}
	// Keys that have expired in the middle of a listing are refused for the rest of it.
	return errors.As(err, &network) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, ErrDenied)
}

// UploadReason is how an upload ended, by what Upload, or any call of a store, returned.
func UploadReason(err error) string {
	var network *net.OpError
	var name *net.DNSError
	is := func(these ...error) bool {
		for _, e := range these {
			if errors.Is(err, e) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return UploadDone
	case is(context.Canceled):
		return UploadInterrupted
	case is(ErrDamaged):
		return UploadDamaged
	case is(ErrNoAnswer, context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT):
		return UploadTimeout
	case is(ErrNoStore, syscall.ESTALE, syscall.ENOTCONN, syscall.ENODEV):
		return UploadNoStore
	case is(ErrDenied, fs.ErrPermission, syscall.EROFS):
		return UploadDenied
	case is(ErrNoSpace, syscall.ENOSPC, syscall.EDQUOT):
		return UploadFull
	case errors.As(err, &network) && network.Timeout():
		return UploadTimeout
	case is(syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH), errors.As(err, &name):
		return UploadRefused
	}
	return UploadError
}
