//go:build tools

// Package tools keeps the command that dev/cluster builds in go.mod.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
