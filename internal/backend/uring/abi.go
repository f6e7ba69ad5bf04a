//go:build linux

package uring

// The kernel's names and numbers, from its header linux/io_uring.h. A name here drops
// the IORING_ prefix and keeps the rest recognizable.

// Operations.
const (
	opNop         = 0
	opReadv       = 1
	opWritev      = 2
	opPollAdd     = 6
	opSendmsg     = 9
	opAccept      = 13
	opAsyncCancel = 14
	opConnect     = 16
	opRead        = 22
	opWrite       = 23
	opSend        = 26
	opRecv        = 27
)

// Flags of a submission entry.
const (
	sqeBufferSelect = 1 << 5
	sqeSkipSuccess  = 1 << 6 // a success has no completion entry
)

// Flags of setup.
const (
	setupCQSize       = 1 << 3
	setupClamp        = 1 << 4
	setupDisabled     = 1 << 6 // the ring starts disabled
	setupSubmitAll    = 1 << 7 // a bad entry does not stop the rest of its batch
	setupCoopTaskrun  = 1 << 8
	setupTaskrunFlag  = 1 << 9
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	setupNoSQArray    = 1 << 16
)

// Features that setup reports.
const (
	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1
	featRWCurPos   = 1 << 3
	featFastPoll   = 1 << 5
	featExtArg     = 1 << 8
	featCQESkip    = 1 << 11
	featBundle     = 1 << 14
)

// Offsets for mmap.
const (
	offRing = 0
	offSQEs = 0x10000000
)

// Flags the kernel shows in the submission queue.
const (
	sqCQOverflow = 1 << 1 // completions wait outside the full queue
	sqTaskrun    = 1 << 2 // completions wait for the task to enter
)

// Flags of enter.
const (
	enterGetEvents = 1 << 0
	enterExtArg    = 1 << 3
)

// Calls of register.
const (
	registerFiles       = 2
	registerEventfd     = 4
	unregisterEventfd   = 5
	registerProbe       = 8
	registerEnableRings = 12
	registerBufferRing  = 22
)

// Flags of one call or another.
const (
	bufferRingIncremental = 1 << 1
	probeSupported        = 1 << 0
	acceptMultishot       = 1 << 0
	recvMultishot         = 1 << 1
	pollAddMulti          = 1 << 0
	cancelAll             = 1 << 0
	cancelAny             = 1 << 2
)

// Flags of a completion.
const (
	cqeBuffer      = 1 << 0 // the upper 16 bits name a provided buffer
	cqeMore        = 1 << 1 // more completions of this entry follow
	cqeBufferMore  = 1 << 4 // more completions will use this buffer
	cqeBufferShift = 16
)

// currentPosition is the offset that stands for the file's own position.
const currentPosition = 1<<64 - 1

type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
	userAddr                                                        uint64
}

type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
	userAddr                                                        uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sq                                                                     sqOffsets
	cq                                                                     cqOffsets
}

// sqe is one submission entry. Its fields name the kernel's unions for their use here:
// off is also a connect's address length, and length also a count of iovecs.
type sqe struct {
	opcode   uint8
	flags    uint8
	ioprio   uint16
	fd       int32
	off      uint64
	addr     uint64
	length   uint32
	opFlags  uint32
	userData uint64
	bufGroup uint16
	_        uint16
	_        uint32
	_        [2]uint64
}

// cqe is one completion entry.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// eventsArg is the extended argument of enter.
type eventsArg struct {
	sigmask     uint64
	sigmaskSize uint32
	minWait     uint32
	ts          uint64
}

// timespec is the kernel's structure, the same on every architecture.
type timespec struct {
	sec, nsec int64
}

type bufferRingReg struct {
	addr    uint64
	entries uint32
	group   uint16
	flags   uint16
	_       [3]uint64
}

// bufferEntry is one provided buffer. In the first entry of a ring the last
// field is the ring's tail.
type bufferEntry struct {
	addr   uint64
	length uint32
	id     uint16
	tail   uint16
}

type probeOp struct {
	op, _ uint8
	flags uint16
	_     uint32
}

type probeReply struct {
	lastOp, opsLen uint8
	_              uint16
	_              [3]uint32
	ops            [64]probeOp
}
