// Command hello stands in for the program in tests of the package.
package main

func main() { println("hello") }
