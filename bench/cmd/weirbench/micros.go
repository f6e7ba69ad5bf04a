package main

type micro struct{ name, title string }
type microResult struct{}

var micros []micro

func (b *bench) runMicros(bool) {}
