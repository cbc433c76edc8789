// This file lets fork.go declare functions without a body; they are linked to
// those of package syscall.
