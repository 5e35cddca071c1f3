package bootstrap

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/nodeagent/nodeagent/pkg/step"
)

// portRange is from its first port to its last one.
type portRange struct{ first, last uint16 }

func (r portRange) has(port uint16) bool { return r.first <= port && port <= r.last }

// parsePorts reads "6443", "2379:2380" and "2379-2380", several of them with commas, as ufw and
// firewalld write them. What is none is left out.
func parsePorts(text string) []portRange {
	if text == "any" {
		return []portRange{{0, 65535}}
	}
	var out []portRange
	for word := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(strings.ReplaceAll(word, ":", "-"), "-")
		if !ranged {
			last = first
		}
		a, err := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err == nil && err2 == nil && a <= b {
			out = append(out, portRange{uint16(a), uint16(b)})
		}
	}
	return out
}

// firewall tells of one that blocks the role's ports or its pods, as it is configured: what it
// lets through from some addresses only is for its owner to know.
func (p preflight) firewall(ctx context.Context) ([]step.Change, error) {
	state, err := p.State(ctx, "firewalld.service")
	if err != nil {
		return nil, err
	}
	var changes []step.Change
	if state.Active() {
		if changes, err = p.firewalld(); err != nil {
			return nil, fmt.Errorf("read firewalld's zone: %w", err)
		}
	}
	ufw, err := p.ufw()
	if err != nil {
		return nil, fmt.Errorf("read ufw's state: %w", err)
	}
	return append(changes, ufw...), nil
}

// closed are the role's ports that are not open, for people: "6443, 10250".
func (p preflight) closed(open func(uint16) bool) string {
	var words []string
	for _, port := range slices.Sorted(maps.Keys(p.rolePorts())) {
		// What only listens on the loopback device needs no hole.
		if !open(port) && !slices.Contains(loopbackPorts, port) {
			words = append(words, fmt.Sprint(port))
		}
	}
	return strings.Join(words, ", ")
}

// ufw reads what `ufw` has written: a policy for what no rule is about, and rules, the first of
// which that fits holds.
func (p preflight) ufw() ([]step.Change, error) {
	conf, err := p.optional("/etc/ufw/ufw.conf")
	if err != nil || !strings.EqualFold(osRelease(conf)["ENABLED"], "yes") {
		return nil, err
	}
	defaults, err := p.optional("/etc/default/ufw")
	if err != nil {
		return nil, err
	}
	rules, err := p.optional("/etc/ufw/user.rules")
	if err != nil {
		return nil, err
	}
	policy := osRelease(defaults)
	accepts := func(chain string) bool { return strings.EqualFold(policy["DEFAULT_"+chain+"_POLICY"], "ACCEPT") }
	tuples := parseUFW(rules)
	closed := p.closed(func(port uint16) bool {
		for _, t := range tuples {
			if slices.ContainsFunc(t.ports, func(r portRange) bool { return r.has(port) }) {
				return t.allows
			}
		}
		return accepts("INPUT")
	})
	var changes []step.Change
	if closed != "" {
		changes = append(changes, finding("Firewall", "ufw is enabled and lets no one reach "+closed,
			"these ports open: ufw allow PORT/tcp for each"))
	}
	if p.role != Etcd && !accepts("FORWARD") {
		changes = append(changes, finding("Firewall", "ufw is enabled and drops what is forwarded", "pods reachable: ufw default allow routed"))
	}
	return changes, nil
}

// ufwTuple is a rule for TCP that comes in.
type ufwTuple struct {
	allows bool
	ports  []portRange
}

// parseUFW reads the comments by which ufw remembers its rules in user.rules, such as
// "### tuple ### allow tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in": action, protocol, the ports here,
// address, ports there, address, programs' names or none, direction.
func parseUFW(rules []byte) []ufwTuple {
	var out []ufwTuple
	for line := range strings.Lines(string(rules)) {
		text, is := strings.CutPrefix(strings.TrimSpace(line), "### tuple ### ")
		text, _, _ = strings.Cut(text, " comment=")
		f := strings.Fields(text)
		if !is || len(f) < 7 || f[1] != "tcp" && f[1] != "any" {
			continue
		}
		// A direction may be followed by the interface: in_eth0.
		if in := f[len(f)-1]; in != "in" && !strings.HasPrefix(in, "in_") {
			continue
		}
		action, _, _ := strings.Cut(f[0], "_") // allow_log
		if strings.HasPrefix(action, "route:") {
			continue
		}
		out = append(out, ufwTuple{allows: action == "allow" || action == "limit", ports: parsePorts(f[2])})
	}
	return out
}

// Where firewalld looks for zones and services, the stronger first.
var firewalldDirs = []string{"/etc/firewalld/", "/usr/lib/firewalld/"}

// firewalld reads the default zone as it will be after a reload.
func (p preflight) firewalld() ([]step.Change, error) {
	conf, err := p.optional("/etc/firewalld/firewalld.conf")
	if err != nil {
		return nil, err
	}
	name := osRelease(conf)["DefaultZone"]
	if name == "" || strings.ContainsAny(name, "/.") {
		name = "public"
	}
	zone, err := p.firewalldFile("zones", name)
	if err != nil || zone.Target == "ACCEPT" {
		return nil, err
	}
	open, err := p.zonePorts(zone)
	if err != nil {
		return nil, err
	}
	closed := p.closed(func(port uint16) bool {
		return slices.ContainsFunc(open, func(r portRange) bool { return r.has(port) })
	})
	if closed == "" {
		return nil, nil
	}
	return []step.Change{finding("Firewalld", fmt.Sprintf("firewalld is active and its zone %s lets no one reach %s", name, closed),
		"these ports open: firewall-cmd --permanent --add-port=PORT/tcp for each, the pods' interface in the zone trusted, then firewall-cmd --reload")}, nil
}

// firewalldXML is a zone or a service, as far as it is about ports.
type firewalldXML struct {
	Target string `xml:"target,attr"`
	Ports  []struct {
		Port     string `xml:"port,attr"`
		Protocol string `xml:"protocol,attr"`
	} `xml:"port"`
	Services []struct {
		Name string `xml:"name,attr"`
	} `xml:"service"`
	Includes []struct {
		Service string `xml:"service,attr"`
	} `xml:"include"`
}

func parseFirewalld(data []byte) (firewalldXML, error) {
	var x firewalldXML
	if len(data) == 0 {
		return x, nil
	}
	err := xml.Unmarshal(data, &x)
	return x, err
}

// firewalldFile is a zone or a service by its name; one that there is no file for opens nothing.
func (p preflight) firewalldFile(kind, name string) (firewalldXML, error) {
	for _, dir := range firewalldDirs {
		file := path.Join(dir, kind, name+".xml")
		data, err := p.host.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return firewalldXML{}, err
		}
		x, err := parseFirewalld(data)
		if err != nil {
			return x, fmt.Errorf("%s: %w", file, err)
		}
		return x, nil
	}
	return firewalldXML{}, nil
}

// zonePorts are the TCP ports of a zone and of its services, which may include others.
func (p preflight) zonePorts(zone firewalldXML) ([]portRange, error) {
	var out []portRange
	seen := map[string]bool{}
	for todo := []firewalldXML{zone}; len(todo) > 0; todo = todo[1:] {
		for _, port := range todo[0].Ports {
			if port.Protocol == "tcp" {
				out = append(out, parsePorts(port.Port)...)
			}
		}
		var names []string
		for _, s := range todo[0].Services {
			names = append(names, s.Name)
		}
		for _, s := range todo[0].Includes {
			names = append(names, s.Service)
		}
		for _, name := range names {
			if seen[name] || strings.ContainsAny(name, "/") {
				continue
			}
			seen[name] = true
			service, err := p.firewalldFile("services", name)
			if err != nil {
				return nil, err
			}
			todo = append(todo, service)
		}
	}
	return out, nil
}

// optional is a file's content, nothing when there is no such file.
func (p preflight) optional(path string) ([]byte, error) {
	data, err := p.host.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
