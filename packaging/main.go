// Command packaging builds the Debian package from a built binary and the files of deploy/.
// It is a module of its own so that the packer's dependencies stay out of the product's, and
// it uses nfpm as a library, of which it links only the part for .deb.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "packaging:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var in Input
	var unix, out string
	flags := flag.NewFlagSet("packaging", flag.ContinueOnError)
	flags.StringVar(&in.Version, "version", "", "version of the package, as Debian spells it: 0.1.0, 0.2.0~rc1, 0.1.0+5.gabcdef0")
	flags.StringVar(&in.Arch, "arch", "amd64", "amd64 or arm64")
	flags.StringVar(&in.Binary, "binary", "", "the built nodeagent")
	flags.StringVar(&in.Generated, "generated", "", "directory with nodeagent.bash, nodeagent.zsh and nodeagent.fish, as `nodeagent completion` prints them")
	flags.StringVar(&in.Source, "source", "..", "the checkout")
	flags.StringVar(&unix, "time", os.Getenv("SOURCE_DATE_EPOCH"), "seconds since 1970 for every file in the package, such as the commit's time; $SOURCE_DATE_EPOCH by default")
	flags.StringVar(&out, "out", "dist", "directory to write to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if in.Version == "" || in.Binary == "" || in.Generated == "" || unix == "" || flags.NArg() > 0 {
		return errors.New("-version, -binary, -generated and -time are needed, and no arguments")
	}
	seconds, err := strconv.ParseInt(unix, 10, 64)
	if err != nil {
		return fmt.Errorf("read -time: %w", err)
	}
	in.Time = time.Unix(seconds, 0).UTC()
	path, err := Build(in, out)
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
