// Package task turns the process part of a config.json into a list of system
// calls, and runs such a list, either on the calling thread or in a forked
// child that ends with execve.
//
// The child of a Go program may run no Go code that could allocate or grow its
// stack: only one thread of the program survives fork. A list that was prepared
// before the fork needs neither. So a process joins a container without a
// second start of the Go runtime, and it can enter a user namespace, which the
// kernel refuses to a process that has threads (setns(2)).
package task
