// Command demo shows the agent at work on a scratch machine: a directory with the files of a
// kubeadm host and a real etcd. It needs no root and no cluster, and ends by itself.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	defaultSeconds = 60
	// scriptTimeout is for everything that the demo does before it only stays and watches. On
	// an idle machine that takes ten seconds.
	scriptTimeout = 3 * time.Minute
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv("DEMO_SECONDS"), os.Stdout)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, seconds string, out io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(out)
	binary := flags.String("nodeagent", "bin/nodeagent", "the program to show")
	into := flags.String("record", "", "put a recording of the show into this `file`, between its marks")
	if err := flags.Parse(args); err != nil {
		return 64
	}
	stay := defaultSeconds
	if seconds != "" {
		n, err := strconv.Atoi(seconds)
		if err != nil || n < 1 {
			fmt.Fprintf(out, "demo: DEMO_SECONDS is %q, and must be a number of seconds\n", seconds)
			return 64
		}
		stay = n
	}
	var transcript strings.Builder
	err := demo(ctx, *binary, time.Duration(stay)*time.Second, &lines{w: io.MultiWriter(out, &transcript)})
	if err == nil && *into != "" {
		err = record(*into, transcript.String())
	}
	if err != nil {
		fmt.Fprintln(out, "demo:", err)
		return 1
	}
	return 0
}
