package main

import (
	"testing"

	"github.com/weir-io/weir/examples/internal/chat"
)

// Members see the same behaviour from either server (R9, R55).
func TestChat(t *testing.T) { chat.Test(t, serve) }
