// Package weir is event-driven I/O: a loop, transports that move bytes, and
// protocols that give them meaning.
//
//	kernel, or the simulator
//	  │  internal/sys                                 system calls
//	  ▼  internal/backend/{epoll,portable,sim,…}      Op in, finished Op out
//	  ▼  Loop                                         one turn: posts, timers, callbacks, wait, results
//	  ▼  Transport                                    buffers, flow control, half-close, close
//	  ▼  a layer                                      a Protocol below, a Transport above
//	  ▼  your Protocol
//
// Below the loop nothing knows the loop; above it everything uses only what
// this package exports.
//
// # Streams
//
// A [Protocol] has three methods. ConnectionMade gets the [Transport],
// DataReceived gets bytes and says how many it used, ConnectionLost gets the
// reason, once, last. DataReceived has the shape of [io.Writer] and a Transport
// is one, so
//
//	weir.DataFunc(t.Write)
//
// is an echo. Optional interfaces tell a protocol more (the peer's end of stream, when
// it writes too much, when everything was sent): [EOFReceiver], [WritePauser],
// [Drainer], [BufferedProtocol], [ConnectFailer], and [WriteFailer] for one that pauses
// reading. A type that needs only some of the
// three methods embeds [NopProtocol].
//
// # Datagrams
//
// [Loop.ListenPacket] opens a [PacketEndpoint] for a [PacketProtocol]. It is not
// connected to any peer: every datagram comes with its sender, and every send names its
// destination. A send that fails, or is refused, ends nothing.
//
// # Goroutines
//
// A loop runs on one goroutine and calls protocols on it, one at a time: they
// need no locks. Methods that may be called from other goroutines say so; the
// rest belong to the loop's goroutine.
//
// # Time
//
// The clock belongs to the backend. It is monotonic on real sockets and virtual
// in the simulator, where an hour takes a moment: code that asks the loop for
// the time and for timers, and never package time, runs in both.
//
// # Errors
//
// ConnectionLost(nil) is a clean end: either side closed and everything was delivered.
// Any other reason says what caused it, and can be told by [errors.Is] or [errors.As].
//
// # Options
//
// Each call that opens something takes options of its own kinds: [ListenOption],
// [ConnectOption], [PacketOption], [StreamOption] and others. An option that has no effect
// in a call does not compile there. [JoinOptions] makes one option of a slice.
//
// # Sharing a loop
//
// A [Tenant] holds what one user of a loop has there: it is ended, bounded and given its
// share as one. A loop can run inside another event loop: see [Loop.PollFD], [Loop.Guest]
// and [Loop.SetTurnLimit].
//
// # The end
//
// [Loop.Shutdown], [Group.Shutdown] and [Listener.Shutdown] end gracefully, with a
// deadline; examples/shutdown does so on SIGTERM. [Loop.Close] ends at once, except
// that it still sends what was written before.
//
// # Packages
//
//   - layer, layer/proxy, layer/ws, layer/zstd: what goes between a transport and a
//     protocol, such as TLS, proxies, limits, WebSocket and compression
//   - layer/packet: the same for datagrams
//   - certs: certificates from files that are read again, and rules for peers
//   - frame: bytes to messages
//   - utp: streams over UDP that give way to other traffic (BEP 29, LEDBAT)
//   - netconn: to and from net.Conn and net.Listener, for net/http and its like
//   - future, task, task/stream: values that come later, and coroutines
//   - process: programs whose descriptors are transports, and terminals
//   - file: files whose disks never hold up a loop
//   - serial: serial lines, whose devices may be unplugged and come back
//   - executor: functions that block
//   - dns: a resolver for [WithResolver]
//   - relay, balance: copying both ways, and choosing among several servers
//   - endpoint: the command's endpoint strings
//   - sink: logs and recordings that never hold up a loop
//   - weirtest: the simulated network with its seeds and faults, transports that
//     record, and the suites that streams and layers have to pass
//   - driver, driver/drivertest: for writing your own backend
package weir
