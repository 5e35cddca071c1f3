//go:build integration

// Package page opens the daemon's page in a headless Chromium, as somebody would who sees it for
// the first time: the machine is that of `make demo`, with the real program on it.
package page

import (
	"bufio"
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the pictures of the docs")

const (
	checkout = "../../.."
	pictures = checkout + "/docs/images"
	// patience is far more than the demo takes.
	patience = 3 * time.Minute
)

// demo runs the demo until the test ends, and returns the address of its page.
func demo(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	for _, program := range []string{"cmd/nodeagent", "test/demo"} {
		build := command(t, "go", "build", "-ldflags", "-X main.version=0.1.0", "-o", bin, "./"+program)
		build.Dir = checkout
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", program, err, out)
		}
	}
	show := command(t, filepath.Join(bin, "demo"), "-nodeagent", filepath.Join(bin, "nodeagent"))
	show.Env = append(os.Environ(), "DEMO_SECONDS=600")
	out, err := show.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := show.Start(); err != nil {
		t.Fatal(err)
	}
	address, ended := make(chan string, 1), make(chan struct{})
	var printed strings.Builder
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			printed.WriteString(lines.Text() + "\n")
			if _, url, ok := strings.Cut(lines.Text(), "for a browser: "); ok {
				address <- url
			}
		}
	}()
	t.Cleanup(func() {
		_ = show.Process.Signal(os.Interrupt)
		<-ended
		if err := show.Wait(); err != nil {
			t.Errorf("the demo: %v\n%s", err, printed.String())
		}
	})
	select {
	case url := <-address:
		return url
	case <-ended:
		t.Fatalf("the demo has ended:\n%s", printed.String())
	case <-time.After(patience):
		_ = syscall.Kill(-show.Process.Pid, syscall.SIGTERM)
		t.Fatal("the demo shows no page")
	}
	return ""
}

func TestPage(t *testing.T) {
	url := demo(t)
	b := openBrowser(t)
	b.devtools("Emulation.setDeviceMetricsOverride", map[string]any{"width": 1120, "height": 1000, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.open(url)

	if title := evaluate[string](b, "document.title"); title != "cp1 is not well" || b.text("h1") != title {
		t.Errorf("the verdict is %q, and in the title %q", b.text("h1"), title)
	}
	if got := b.text("#summary"); got != "1 problem" {
		t.Errorf("the summary is %q", got)
	}
	if got := b.text(".problems li.error"); !regexp.MustCompile(`^error /etc/kubernetes/pki/apiserver\.crt expires in 9 days, \S+\nkubeadm certs renew all$`).MatchString(got) {
		t.Errorf("the problem is %q", got)
	}
	// What is proven of the backups: nothing yet.
	if got := evaluate[string](b, `document.querySelector('#backups').parentElement.querySelector('tbody th').lastElementChild.innerText`); got != "not proven yet" {
		t.Errorf("of the newest backup it says %q", got)
	}
	// The bar of the certificate that ends in nine days ends just right of the line of now; that of
	// an authority leaves the picture.
	const ends = `[...document.querySelectorAll('.timeline tbody tr')].filter(r => r.innerText.startsWith('/etc/kubernetes/pki/%s')).map(r =>
		[r.querySelector('.bar').getBoundingClientRect().right - r.querySelector('.now').getBoundingClientRect().left, getComputedStyle(r.querySelector('.bar')).fill])[0]`
	soon := evaluate[[]any](b, strings.ReplaceAll(ends, "%s", "apiserver.crt"))
	if right, _ := soon[0].(float64); right < 1 || right > 30 {
		t.Errorf("its bar ends %v pixels from now", soon[0])
	}
	authority := evaluate[[]any](b, strings.ReplaceAll(ends, "%s", "ca.crt"))
	if right, _ := authority[0].(float64); right < 100 {
		t.Errorf("an authority's bar ends %v pixels from now", authority[0])
	}
	if soon[1] == authority[1] || soon[1] == "rgb(0, 0, 0)" {
		t.Errorf("the bars have the colors %v and %v: the style sheet is not applied", soon[1], authority[1])
	}

	// A click opens the steps that are clean; another one leads to a section.
	if b.shown("#clean-steps td") {
		t.Error("the clean steps are shown before a click")
	}
	b.click("#clean-steps summary")
	if !b.shown("#clean-steps td") || !strings.Contains(b.text("#clean-steps"), "kernel/swap") {
		t.Error("a click does not show the clean steps")
	}
	b.click("#clean-steps summary")
	b.click("nav a[href='#certificates']")
	if at := evaluate[string](b, "location.hash"); at != "#certificates" {
		t.Errorf("a click on a link leads to %q", at)
	}
	if wide := evaluate[float64](b, "document.documentElement.scrollWidth - document.documentElement.clientWidth"); wide > 0 {
		t.Errorf("the page is %v pixels too wide", wide)
	}

	if wide := evaluate[[]string](b, `[...document.querySelectorAll('section')].filter(s => [...s.querySelectorAll('table')].some(t => t.getBoundingClientRect().right > s.getBoundingClientRect().right)).map(s => s.innerText.split('\n')[0])`); len(wide) > 0 {
		t.Errorf("the tables of %q leave their sections", wide)
	}

	// The policy holds: neither a script nor a picture from elsewhere is let in.
	if blocked := evaluate[bool](b, `(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s); return window.broken === undefined })()`); !blocked {
		t.Error("the policy lets a script run")
	}
	if got := b.complaints(); len(got) != 1 || !strings.Contains(got[0], "Content Security Policy") {
		t.Errorf("the console is to hold the script that was refused: %q", got)
	}

	light := picture(t, b, url, "light")
	dark := picture(t, b, url, "dark")
	if light < 200 || dark > 60 {
		t.Errorf("the light page's background is %d bright, the dark one's %d, of 255", light, dark)
	}
	if got := b.complaints(); len(got) > 0 {
		t.Errorf("the console complains: %q", got)
	}
}

// picture takes one of the page as those see it who prefer light or dark, and says how bright its
// corner is. With -update it is that of the docs.
func picture(t *testing.T, b *browser, url, scheme string) int {
	t.Helper()
	b.devtools("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]string{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.open(url)
	data := b.screenshot()
	shot, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	name := "status-" + scheme + ".png"
	if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(pictures, name), small(t, shot), 0o644); err != nil { //nolint:gosec // a picture for everybody
			t.Fatal(err)
		}
	}
	of, err := os.ReadFile(filepath.Join(pictures, name))
	if err != nil {
		t.Fatalf("%v; `go test -tags integration ./test/integration/page -update` takes it", err)
	}
	if known, err := png.DecodeConfig(bytes.NewReader(of)); err != nil || known.Width != shot.Bounds().Dx() || known.Height != shot.Bounds().Dy() {
		t.Errorf("%s is another picture's size: %v", name, err)
	}
	r, g, bl, _ := shot.At(2, 2).RGBA()
	return int(r+g+bl) / 3 >> 8
}

// small is the picture with the 256 colors that it has most of.
func small(t *testing.T, shot image.Image) []byte {
	t.Helper()
	seen := map[color.Color]int{}
	for y := range shot.Bounds().Dy() {
		for x := range shot.Bounds().Dx() {
			seen[shot.At(x, y)]++
		}
	}
	colors := slices.SortedFunc(maps.Keys(seen), func(a, b color.Color) int {
		// Ties are broken too: the same picture is the same file.
		return cmp.Or(cmp.Compare(seen[b], seen[a]), cmp.Compare(fmt.Sprint(a), fmt.Sprint(b)))
	})
	out := image.NewPaletted(shot.Bounds(), colors[:min(256, len(colors))])
	draw.Draw(out, out.Bounds(), shot, image.Point{}, draw.Src)
	var file bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&file, out); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}
