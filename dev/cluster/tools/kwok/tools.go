//go:build tools

// Package tools keeps the command that dev/cluster builds in go.mod.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
