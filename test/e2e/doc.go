// Package e2e is what an operator would do and look at on a fresh machine, done to a real one.
// Its tests need the tools of the lab and `make package`; the build tag e2e selects them.
package e2e
