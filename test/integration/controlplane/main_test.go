//go:build integration

// Package controlplane_test tries the packages that talk to a control plane on a real one.
package controlplane_test

import (
	"os"
	"testing"

	"github.com/nodeagent/nodeagent/test/controlplane"
)

func TestMain(m *testing.M) { os.Exit(controlplane.Main(m)) }
