//go:build !unix

package main

func sendDatagram(string, string) (full bool) { return false }
