// Package interop holds tests, in a module of their own because of their
// dependencies: other people's libraries over package netconn, unchanged (R57), and
// at the other end of layers.
package interop
