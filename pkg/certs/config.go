package certs

import "fmt"

// Config is the section `certs` of the configuration.
type Config struct {
	// Renew says whether the agent renews certificates: "off" only, in this version.
	Renew string `yaml:"renew"`
}

// DefaultConfig is the section of a configuration that does not name it.
func DefaultConfig() Config { return Config{Renew: "off"} }

// Validate says what is wrong with the section, each error beginning with the field's path.
func (c Config) Validate() error {
	switch c.Renew {
	case "off":
		return nil
	case "auto":
		return fmt.Errorf("renew: %q is not in this version: use %q", c.Renew, "off")
	}
	return fmt.Errorf("renew: %q is not known: use %q", c.Renew, "off")
}
