package task

import (
	"fmt"
	"strings"
)

// Getenv returns the value of a variable, "" if it is not there.
func Getenv(env []string, name string) string {
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// CleanEnv checks the environment of a config and keeps the last value of each
// name, at the place of the first, as runc does.
func CleanEnv(env []string) ([]string, error) {
	out := make([]string, 0, len(env)+1)
	at := make(map[string]int, len(env))
	for _, e := range env {
		k, _, ok := strings.Cut(e, "=")
		if !ok || k == "" || strings.ContainsRune(e, 0) {
			return nil, fmt.Errorf("invalid environment variable %q", e)
		}
		if i, ok := at[k]; ok {
			out[i] = e
			continue
		}
		at[k] = len(out)
		out = append(out, e)
	}
	return out, nil
}

// WithHome returns env with HOME, if it has none.
func WithHome(env []string, home string) []string {
	if Getenv(env, "HOME") != "" {
		return env
	}
	for i, e := range env {
		if e == "HOME=" {
			env[i] = "HOME=" + home
			return env
		}
	}
	return append(env, "HOME="+home)
}
