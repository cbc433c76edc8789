package kvm

import "errors"

// How a VM ends by itself; Err wraps one of them, or vm.ErrClosed.
var (
	// ErrPowerOff says that the guest switched itself off.
	ErrPowerOff = errors.New("the guest powered off")
	// ErrReset says that the guest reset itself, as a kernel does after a panic.
	ErrReset = errors.New("the guest reset itself")
	// ErrTripleFault says that a processor of the guest met a fault that it could
	// not handle, three times over.
	ErrTripleFault = errors.New("the guest's processor shut down (triple fault)")
	// ErrCrash says that the guest told KVM that it crashed.
	ErrCrash = errors.New("the guest crashed")
	// ErrStuck says that KVM or the processor refused to execute the guest.
	ErrStuck = errors.New("the guest cannot be executed")
)

// ErrUnusable says that KVM on this host does not do what runv needs.
var ErrUnusable = errors.New("kvm cannot be used")
