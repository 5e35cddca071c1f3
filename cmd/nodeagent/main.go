// Command nodeagent makes a host a node of a kubeadm cluster, keeps it so and shows it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // backup.timeZone names zones, and minimal images have no tzdata

	"github.com/nodeagent/nodeagent/pkg/host"
)

// The exit codes, as documented in nodeagent(8).
const (
	exitOK          = 0
	exitFailed      = 1
	exitDiffers     = 2
	exitLockHeld    = 5
	exitUsage       = 64
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: data goes to stdout, messages to stderr, the result is the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	if err != nil && code != exitDiffers {
		fmt.Fprintf(stderr, "nodeagent: %v\n", err)
	}
	return code
}

// errDiffers is the result of plan on a host that apply would change: no failure.
var errDiffers = errors.New("the host differs")

// usageError is a command line that cannot be understood.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(ctx context.Context, err error) int {
	var usage usageError
	var held *host.HeldError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	case errors.Is(err, errDiffers):
		return exitDiffers
	case errors.As(err, &held):
		return exitLockHeld
	default:
		return exitFailed
	}
}
