# What failed, of the output of go test with or without -v, go vet and golangci-lint. Give it the
# log twice: which tests failed stands at their ends, and what they said before that.
#
# Of each failing test come its first lines, and of what passed nothing: with -v the passing
# tests' own words are most of a log.
BEGIN { most = 40 }

# The first time.
NR == FNR {
  if ($1 == "---" && $2 == "FAIL:") failed[$3] = 1
  next
}

# The second time. With -v a test's words come between its name and the next one's; without it
# they follow the line that says it failed.
/^=== (RUN|NAME|CONT) / { name = $3; open = (name in failed); panicked = 0; next }
/^=== / { open = 0; next }
$1 == "---" && $2 == "FAIL:" { print; name = $3; open = 1; next }
$1 == "---" { open = 0; next }
/^(PASS|ok |\?)/ { open = 0; panicked = 0; next }
/^(FAIL|make: \*\*\*)/ { print; open = 0; panicked = 0; next }
/^panic: / || /^fatal error: / || /^WARNING: DATA RACE/ { panicked = most }
panicked > 0 { print; panicked--; next }
# A compiler or a linter.
/^(vet: )?[^ ]+\.go:[0-9]+:[0-9]+: / { print; next }
open && said[name]++ < most { print }
