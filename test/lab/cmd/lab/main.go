// Command lab builds the artefacts of the tests into the cache, or prints where one lies.
//
//	go run ./test/lab/cmd/lab build [NAME...|all]
//	go run ./test/lab/cmd/lab path NAME
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodeagent/nodeagent/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	switch {
	case len(args) >= 1 && args[0] == "build":
		args = args[1:]
		if len(args) == 0 || len(args) == 1 && args[0] == "all" {
			args = lab.Names()
		}
	case len(args) == 2 && args[0] == "path":
		args = args[1:]
	default:
		fmt.Fprintf(os.Stderr, "usage: lab build [NAME...|all] | lab path NAME\nnames: %q\n", lab.Names())
		return 64
	}
	for _, name := range args {
		dir, err := lab.Build(ctx, name)
		if err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
			return 1
		}
		fmt.Println(dir)
	}
	return 0
}
