// Package kernel brings what kubelet wants of the kernel: swap off, modules, sysctls, each as a
// step, and the network facts that netlink knows. Parsers are pure; system calls that obey no
// root come in as func values.
package kernel

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Config is the section "kernel" of the configuration.
type Config struct {
	// Swap is what becomes of swap: "disable" turns it off for good; "keep" leaves it as it is,
	// for a kubelet whose failSwapOn is false.
	Swap string `yaml:"swap"`
	// Modules are loaded beside those that Kubernetes needs.
	Modules []string `yaml:"modules"`
	// Sysctls are set beside those that Kubernetes needs, and win over them.
	Sysctls []Sysctl `yaml:"sysctls"`
}

// Sysctl is one kernel parameter. Its name is written as in sysctl.d(5): "net.ipv4.ip_forward",
// "net/ipv4/conf/eth0.100/forwarding" or "net.ipv4.conf.eth0/100.forwarding".
type Sysctl struct {
	// Name is written with dots or with slashes, as in sysctl.d(5).
	Name string `yaml:"name"`
	// Value is a string: a number needs quotes.
	Value string `yaml:"value"`
}

// DefaultConfig is what holds where the configuration says nothing.
func DefaultConfig() Config { return Config{Swap: "disable"} }

var (
	moduleName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`)
	// Between two separators there is always something: that leaves no room for "..", for an
	// absolute path, nor for a glob. A dash at the beginning means something else in sysctl.d.
	sysctlName = regexp.MustCompile(`^[A-Za-z0-9_:@%+][A-Za-z0-9_:@%+-]*([./][A-Za-z0-9_:@%+-]+)+$`)
)

// Validate returns every mistake, joined. Each begins with the field, relative to the section.
func (c Config) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.Swap {
	case "disable", "keep":
	default:
		wrong(`swap: %q is not a choice: use "disable" or "keep"`, c.Swap)
	}
	for i, name := range c.Modules {
		if !moduleName.MatchString(name) {
			wrong(`modules[%d]: %q is not a module name: use one such as "nf_conntrack"`, i, name)
		}
	}
	first := map[string]int{}
	for i, s := range c.Sysctls {
		if err := validSysctl(s); err != nil {
			wrong("sysctls[%d].%w", i, err)
			continue
		}
		name := variable(s.Name)
		j, there := first[name]
		if !there {
			first[name] = i
		} else if !sameValue(c.Sysctls[j].Value, s.Value) {
			wrong("sysctls[%d].value: %s is %q here and %q in sysctls[%d]", i, s.Name, s.Value, c.Sysctls[j].Value, j)
		}
	}
	return errors.Join(errs...)
}

func validSysctl(s Sysctl) error {
	if !sysctlName.MatchString(s.Name) {
		return fmt.Errorf(`name: %q is not a sysctl name: use one such as "net.ipv4.ip_forward"`, s.Name)
	}
	if strings.TrimSpace(s.Value) == "" {
		return errors.New("value: is empty")
	}
	control := func(r rune) bool { return r != '\t' && (r < ' ' || r == 0x7f) }
	if strings.ContainsFunc(s.Value, control) {
		return fmt.Errorf("value: %q holds a line break or a control character", s.Value)
	}
	return nil
}
