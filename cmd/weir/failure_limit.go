package main

import (
	"errors"
	"fmt"

	"github.com/weir-io/weir/layer"
	"github.com/weir-io/weir/layer/ws"
)

// whyLimit says which layer's limit of time ended a connection, which of its
// limits, and after how long; "" for other errors.
func whyLimit(err error) string {
	var (
		idle *layer.IdleError
		pong *ws.PongError
	)
	switch {
	case errors.As(err, &idle):
		return whyIdle(idle)
	case errors.As(err, &pong):
		return fmt.Sprintf("ws: silent, and no pong within %v of the ping", pong.After)
	case errors.Is(err, layer.ErrTimeout):
		if word := layerOf(err); word != "" {
			return "timed out in " + word
		}
		return "timed out"
	}
	return ""
}

func whyIdle(e *layer.IdleError) string {
	switch e.What {
	case layer.WriteStalled:
		return fmt.Sprintf("idle: took nothing of what waits for it for %v (stall)", e.After)
	case layer.TooSlow:
		return fmt.Sprintf("idle: sent less than min-rate, over %v", e.After)
	case layer.NothingPassed:
	}
	return fmt.Sprintf("idle: nothing passed, either way, for %v", e.After)
}

// layerOf is the word of the layer that an error comes from, "" for that of none.
func layerOf(err error) string {
	var e *layer.Error
	if errors.As(err, &e) {
		return e.Layer
	}
	return ""
}

// reasonFields are a reason in JSON: the words, and the layer that gave it.
func reasonFields(err error) []any {
	fields := []any{"reason", why(err)}
	if word := layerOf(err); word != "" {
		fields = append(fields, "layer", word)
	}
	return fields
}
