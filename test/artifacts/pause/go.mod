// Not part of the product: the pause program of the tests' pod sandboxes.
module github.com/nodeagent/nodeagent/test/artifacts/pause

go 1.26.0
