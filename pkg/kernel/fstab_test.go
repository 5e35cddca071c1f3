package kernel

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCommentSwap(t *testing.T) {
	tests := map[string]struct {
		line string
		spec string // of a swap entry; none is left alone
	}{
		"device":           {"/dev/vdb1 none swap sw 0 0\n", "/dev/vdb1"},
		"tabs":             {"\t/dev/vdb1\tnone\t\tswap\tdefaults\n", "/dev/vdb1"},
		"uuid":             {"UUID=0a1b none swap sw 0 0\n", "UUID=0a1b"},
		"label":            {"LABEL=swap none swap sw,pri=5 0 0\n", "LABEL=swap"},
		"quoted label":     {"LABEL=\"my\\040swap\" none swap sw 0 0\n", `LABEL="my swap"`},
		"file":             {"/swapfile swap swap defaults,nofail,discard=once 0 0\n", "/swapfile"},
		"escaped":          {`/swap\040file none swap sw 0 0` + "\n", "/swap file"},
		"noauto":           {"/dev/vdb1 none swap noauto 0 0\n", "/dev/vdb1"},
		"three fields":     {"/dev/vdb1 none swap\n", "/dev/vdb1"},
		"no line end":      {"/dev/vdb1 none swap sw 0 0", "/dev/vdb1"},
		"carriage return":  {"/dev/vdb1 none swap sw 0 0\r\n", "/dev/vdb1"},
		"return, short":    {"/dev/vdb1 none swap\r\n", "/dev/vdb1"},
		"uncommented":      {" " + swapOff + "\n", ""},
		"comment":          {"#/dev/vdb1 none swap sw 0 0\n", ""},
		"indented comment": {"  # /dev/vdb1 none swap sw 0 0\n", ""},
		"commented by us":  {swapOff + "/dev/vdb1 none swap sw 0 0\n", ""},
		"mounted on /swap": {"/dev/vda1 /swap ext4 defaults 0 2\n", ""},
		"a device swap":    {"swap /mnt tmpfs swap 0 0\n", ""},
		"option swap":      {"/dev/vda1 / ext4 swap 0 1\n", ""},
		"longer type":      {"/dev/vda1 / swapfs defaults 0 1\n", ""},
		"two fields":       {"none swap\n", ""},
		"no-break space":   {"/dev/vda1\u00a0none swap swap2 0 0\n", ""},
		"garbage":          {"\x00\xff \\ \\9 \\400\n", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			const before, after = "# /etc/fstab\nUUID=root / ext4 errors=remount-ro 0 1\n\n", "tmpfs /tmp tmpfs size=1G 0 0\n"
			in := before + test.line
			if strings.HasSuffix(test.line, "\n") {
				in += after
			}
			want := in
			if test.spec != "" {
				want = strings.Replace(in, test.line, swapOff+test.line, 1)
			}
			lines := parseFstab([]byte(in))
			if diff := cmp.Diff(want, string(commentSwap(lines))); diff != "" {
				t.Errorf("commented (- wanted, + found):\n%s", diff)
			}
			line := lines[3]
			if line.Number != 4 || line.Swap != (test.spec != "") || line.Swap && line.Spec != test.spec {
				t.Errorf("line is %+v, want number 4 of swap %q", line, test.spec)
			}
		})
	}
}

func TestCommentedEntryIsRemembered(t *testing.T) {
	lines := parseFstab([]byte(swapOff + "/dev/vdb1 none swap sw 0 0\n" + swapOff + "not an entry\n"))
	if !lines[0].Ours || lines[0].Swap || lines[0].Spec != "/dev/vdb1" {
		t.Errorf("our line is %+v", lines[0])
	}
	if lines[1].Ours || lines[1].Swap {
		t.Errorf("a line that is no entry is %+v", lines[1])
	}
}

func TestUnescapeOctal(t *testing.T) {
	for in, want := range map[string]string{
		`/a\040b`: "/a b", `\134040`: `\040`, `\011\012`: "\t\n", `\40`: `\40`, `\400`: `\400`, `\08`: `\08`, `\`: `\`, `x\377`: "x\xff", ``: ``,
	} {
		if have := unescapeOctal(in); have != want {
			t.Errorf("unescapeOctal(%q) = %q, want %q", in, have, want)
		}
	}
}

// As systemd-fstab-generator 252 says what it makes a unit of.
func TestSwapPath(t *testing.T) {
	for spec, want := range map[string]string{
		"UUID=0A1b-22": "/dev/disk/by-uuid/0A1b-22", "PARTUUID=ABCD-01": "/dev/disk/by-partuuid/ABCD-01", "LABEL=my swap": `/dev/disk/by-label/my\x20swap`,
		`LABEL="my swap"`: `/dev/disk/by-label/my\x20swap`, "LABEL='s'": "/dev/disk/by-label/s", `LABEL="`: `/dev/disk/by-label/\x22`, "LABEL=é+x": "/dev/disk/by-label/é+x",
		"PARTLABEL=a/b\\c": `/dev/disk/by-partlabel/a\x2fb\x5cc`, "LABEL=\xff": `/dev/disk/by-label/\xff`, "/swap file": "/swap file", "/dev/vdb1": "/dev/vdb1",
		"swap": "", "ID=x": "", "none": "", "": "",
	} {
		if have := swapPath(spec); have != want {
			t.Errorf("%s: %s, want %s", spec, have, want)
		}
	}
}

func FuzzFstab(f *testing.F) {
	for _, seed := range []string{
		"", "\n", "/dev/vdb1 none swap sw 0 0", "a b swap\r\n#c\n\n x y swap \n", swapOff + "a b swap\n", `\040 \ swap \`, "a\tb\tsw\\141p\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		lines := parseFstab(in)
		var joined bytes.Buffer
		for _, l := range lines {
			joined.WriteString(l.Raw)
		}
		if !bytes.Equal(joined.Bytes(), in) {
			t.Fatalf("printed %q, want %q", joined.Bytes(), in)
		}
		after := parseFstab(commentSwap(lines))
		if len(after) != len(lines) {
			t.Fatalf("%d lines became %d", len(lines), len(after))
		}
		for i, was := range lines {
			is := after[i]
			if is.Swap {
				t.Errorf("line %d is still an entry: %q", is.Number, is.Raw)
			}
			want := was.Raw
			if was.Swap {
				want = swapOff + was.Raw
			}
			if is.Raw != want || was.Swap && (!is.Ours || is.Spec != was.Spec) {
				t.Errorf("line %d became %+v, was %+v", is.Number, is, was)
			}
		}
	})
}
