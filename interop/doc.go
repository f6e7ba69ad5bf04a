// Package interop holds tests, and in http3 a program, in a module of their own because of their
// dependencies: other people's libraries over package netconn, unchanged (R57), and
// at the other end of layers.
package interop
