//go:build tools

// Package tools keeps the command that dev/cluster builds in go.mod.
package tools

import _ "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"
