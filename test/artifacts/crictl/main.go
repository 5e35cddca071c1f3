// Command crictl stands in for the one of cri-tools, whose module cannot be had from the Go
// module proxy. It reads the same /etc/crictl.yaml and knows two of its commands: version and
// info.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// config is what crictl.yaml holds of what this program needs.
type config struct {
	RuntimeEndpoint string `json:"runtime-endpoint"`
	Timeout         int    `json:"timeout"` // seconds
}

func main() {
	file := flag.String("config", "/etc/crictl.yaml", "configuration `file`")
	endpoint := flag.String("runtime-endpoint", "", "the runtime's `socket`, as unix:///path")
	flag.Parse()
	if err := run(*file, *endpoint, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "crictl:", err)
		os.Exit(1)
	}
}

func run(file, endpoint string, args []string) error {
	if len(args) != 1 || args[0] != "version" && args[0] != "info" {
		return fmt.Errorf("this stand-in has the commands version and info, and not %q", args)
	}
	c, err := load(file)
	if err != nil {
		return err
	}
	if endpoint != "" {
		c.RuntimeEndpoint = endpoint
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(c.Timeout)*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(c.RuntimeEndpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	runtime := cri.NewRuntimeServiceClient(conn)
	if args[0] == "version" {
		return version(ctx, runtime)
	}
	return info(ctx, runtime)
}

// load reads the configuration. Without the file the defaults hold, as with the real one; the
// real one refuses unknown keys, and so does this.
func load(file string) (config, error) {
	c := config{RuntimeEndpoint: "unix:///run/containerd/containerd.sock", Timeout: 10}
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	all := struct {
		config
		ImageEndpoint     string `json:"image-endpoint"`
		Debug             bool   `json:"debug"`
		PullImageOnCreate bool   `json:"pull-image-on-create"`
		DisablePullOnRun  bool   `json:"disable-pull-on-run"`
	}{config: c}
	if err := yaml.UnmarshalStrict(content, &all); err != nil {
		return c, fmt.Errorf("read %s: %w", file, err)
	}
	if all.Timeout == 0 {
		all.Timeout = c.Timeout
	}
	return all.config, nil
}

func version(ctx context.Context, runtime cri.RuntimeServiceClient) error {
	r, err := runtime.Version(ctx, &cri.VersionRequest{Version: "v1"})
	if err != nil {
		return err
	}
	fmt.Printf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n",
		r.Version, r.RuntimeName, r.RuntimeVersion, r.RuntimeApiVersion)
	return nil
}

// info prints the runtime's status, with its configuration where that is JSON.
func info(ctx context.Context, runtime cri.RuntimeServiceClient) error {
	r, err := runtime.Status(ctx, &cri.StatusRequest{Verbose: true})
	if err != nil {
		return err
	}
	all := map[string]any{"status": r.Status}
	for name, text := range r.Info {
		all[name] = text
		if json.Valid([]byte(text)) {
			all[name] = json.RawMessage(text)
		}
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	return out.Encode(all)
}
