package ws

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// windowLen is how far back a distance in deflate can reach.
const windowLen = 32 << 10

// inflater undoes deflate (RFC 1951) as its bytes come: it keeps the window and
// a few bits, and none of the input that is still to be read. So the cost of an
// unfinished message is known, however long it is.
//
//	next ◀── bytes, cut anywhere
//	  └────▶ what they hold, up to the end of the window at a time
type inflater struct {
	state inflateState
	final bool   // this block is the last
	bits  uint64 // what was taken off the input and has not been used
	n     uint   // how many bits those are

	window   [windowLen]byte
	from, at int  // what is in between has not been handed over
	full     bool // the window has wrapped around: all of it holds earlier bytes

	lit, dist         *prefixCode // of this block
	ownLit, ownDist   prefixCode
	lens              [litCodes + distCodes]byte
	nLit, nDist, nLen int
	have              int // how many lengths have been read

	length, distance int // of a copy in progress, or of stored bytes
}

type inflateState byte

const (
	inflateBlock   inflateState = iota // a block begins
	inflateStored                      // the length of stored bytes
	inflateBytes                       // stored bytes
	inflateSizes                       // how many lengths of codes follow
	inflateLengths                     // the lengths of the code of lengths
	inflateCodes                       // the lengths of the two codes
	inflateSymbols
	inflateCopy
	inflateDone
)

// The numbers of symbols (RFC 1951, 3.2.5).
const (
	litCodes  = 286
	distCodes = 30
	endSymbol = 256
)

var errDeflate = errors.New("not deflate")

func (z *inflater) reset() {
	z.state, z.final, z.bits, z.n, z.from, z.at, z.full = inflateBlock, false, 0, 0, 0, 0, false
}

// done reports whether the last block was read. What comes after is ignored.
func (z *inflater) done() bool { return z.state == inflateDone }

// next takes used bytes off src and returns some of what they hold, lent until
// the next call. Call it until it returns nothing: src is then used up. An
// error is final.
func (z *inflater) next(src []byte) (used int, out []byte, err error) {
	if z.at == windowLen {
		z.at, z.full = 0, true
	}
	z.from = z.at
	for more := true; more && z.at < windowLen; {
		if z.state == inflateDone {
			return len(src), z.window[z.from:z.at], nil
		}
		for z.n <= 56 && used < len(src) {
			z.bits |= uint64(src[used]) << z.n
			z.n += 8
			used++
		}
		switch z.state {
		case inflateBlock:
			more, err = z.block()
		case inflateStored:
			more, err = z.stored()
		case inflateBytes:
			used, more = z.copyStored(src, used)
		case inflateSizes:
			more, err = z.sizes()
		case inflateLengths:
			more, err = z.lengths()
		case inflateCodes:
			more, err = z.codes()
		case inflateSymbols:
			used, more, err = z.symbols(src, used)
		case inflateCopy:
			z.copyMatch()
		case inflateDone:
		}
		if err != nil {
			return used, nil, err
		}
		more = more || used < len(src)
	}
	return used, z.window[z.from:z.at], nil
}

// take takes k bits; at least that many must be there.
func (z *inflater) take(k uint) int {
	v := int(z.bits & (1<<k - 1))
	z.bits >>= k
	z.n -= k
	return v
}

func (z *inflater) endBlock() {
	z.state = inflateBlock
	if z.final {
		z.state = inflateDone
	}
}

func (z *inflater) block() (bool, error) {
	if z.n < 3 {
		return false, nil
	}
	z.final = z.take(1) == 1
	switch z.take(2) {
	case 0:
		z.take(z.n & 7)
		z.state = inflateStored
	case 1:
		z.lit, z.dist = &fixedCodes.lit, &fixedCodes.dist
		z.state = inflateSymbols
	case 2:
		z.state = inflateSizes
	default:
		return false, errDeflate
	}
	return true, nil
}

func (z *inflater) stored() (bool, error) {
	if z.n < 32 {
		return false, nil
	}
	n, not := z.take(16), z.take(16)
	if n != not^0xffff {
		return false, errDeflate
	}
	z.length, z.state = n, inflateBytes
	return true, nil
}

func (z *inflater) copyStored(src []byte, used int) (int, bool) {
	for ; z.n >= 8 && z.length > 0 && z.at < windowLen; z.at++ {
		z.window[z.at] = byte(z.take(8))
		z.length--
	}
	if z.n == 0 {
		k := copy(z.window[z.at:min(windowLen, z.at+z.length)], src[used:])
		z.at, z.length, used = z.at+k, z.length-k, used+k
	}
	if z.length == 0 {
		z.endBlock()
		return used, true
	}
	return used, z.n >= 8 || used < len(src)
}

func (z *inflater) sizes() (bool, error) {
	if z.n < 14 {
		return false, nil
	}
	z.nLit, z.nDist, z.nLen = z.take(5)+257, z.take(5)+1, z.take(4)+4
	if z.nLit > litCodes || z.nDist > distCodes {
		return false, errDeflate
	}
	clear(z.lens[:len(lengthOrder)])
	z.have, z.state = 0, inflateLengths
	return true, nil
}

// lengthOrder is the order in which the lengths of the code of lengths are sent.
var lengthOrder = [...]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (z *inflater) lengths() (bool, error) {
	for ; z.have < z.nLen; z.have++ {
		if z.n < 3 {
			return false, nil
		}
		z.lens[lengthOrder[z.have]] = byte(z.take(3))
	}
	if !z.ownLit.build(z.lens[:len(lengthOrder)]) {
		return false, errDeflate
	}
	z.have, z.state = 0, inflateCodes
	return true, nil
}

func (z *inflater) codes() (bool, error) {
	for z.have < z.nLit+z.nDist {
		sym, l := z.ownLit.find(z.bits)
		if l > z.n || l == 0 && z.n < 7 {
			return false, nil
		}
		if l == 0 {
			return false, errDeflate
		}
		if sym < 16 {
			z.take(l)
			z.lens[z.have] = byte(sym)
			z.have++
			continue
		}
		r := repeats[sym-16]
		if l+r.bits > z.n {
			return false, nil
		}
		z.take(l)
		k, of := r.base+z.take(r.bits), byte(0)
		if sym == 16 {
			if z.have == 0 {
				return false, errDeflate
			}
			of = z.lens[z.have-1]
		}
		if z.have+k > z.nLit+z.nDist {
			return false, errDeflate
		}
		for range k {
			z.lens[z.have] = of
			z.have++
		}
	}
	if !z.ownLit.build(z.lens[:z.nLit]) || !z.ownDist.build(z.lens[z.nLit:z.have]) {
		return false, errDeflate
	}
	z.lit, z.dist, z.state = &z.ownLit, &z.ownDist, inflateSymbols
	return true, nil
}

// extra is the base value of a symbol, and how many extra bits are added to it.
type extra struct {
	base int
	bits uint
}

// repeats are the symbols 16 to 18 of the code of lengths.
var repeats = [...]extra{{3, 2}, {3, 3}, {11, 7}}

var lengthExtra = [...]extra{
	{3, 0},
	{4, 0},
	{5, 0},
	{6, 0},
	{7, 0},
	{8, 0},
	{9, 0},
	{10, 0},
	{11, 1},
	{13, 1},
	{15, 1},
	{17, 1},
	{19, 2},
	{23, 2},
	{27, 2},
	{31, 2},
	{35, 3},
	{43, 3},
	{51, 3},
	{59, 3},
	{67, 4},
	{83, 4},
	{99, 4},
	{115, 4},
	{131, 5},
	{163, 5},
	{195, 5},
	{227, 5},
	{258, 0},
}

var distExtra = [...]extra{
	{1, 0},
	{2, 0},
	{3, 0},
	{4, 0},
	{5, 1},
	{7, 1},
	{9, 2},
	{13, 2},
	{17, 3},
	{25, 3},
	{33, 4},
	{49, 4},
	{65, 5},
	{97, 5},
	{129, 6},
	{193, 6},
	{257, 7},
	{385, 7},
	{513, 8},
	{769, 8},
	{1025, 9},
	{1537, 9},
	{2049, 10},
	{3073, 10},
	{4097, 11},
	{6145, 11},
	{8193, 12},
	{12289, 12},
	{16385, 13},
	{24577, 13},
}

// symbols reads literals and copies until the window or the block ends, or bits
// are missing. A copy is read whole or not at all: it takes 48 bits at most.
func (z *inflater) symbols(src []byte, used int) (int, bool, error) {
	b, n := z.bits, z.n
	for z.at < windowLen {
		if n < 48 {
			if len(src)-used >= 6 {
				if n <= 32 {
					b |= uint64(binary.LittleEndian.Uint32(src[used:])) << n
					n, used = n+32, used+4
				}
				if n < 48 {
					b |= uint64(binary.LittleEndian.Uint16(src[used:])) << n
					n, used = n+16, used+2
				}
			} else {
				for n <= 56 && used < len(src) {
					b |= uint64(src[used]) << n
					n, used = n+8, used+1
				}
			}
		}
		sym, l := z.lit.find(b)
		switch {
		case l > n || l == 0 && n < 15:
			z.bits, z.n = b, n
			return used, false, nil
		case l == 0 || sym >= litCodes:
			return used, false, errDeflate
		case sym < endSymbol:
			z.window[z.at] = byte(sym)
			z.at++
			b, n = b>>l, n-l
			continue
		case sym == endSymbol:
			z.bits, z.n = b>>l, n-l
			z.endBlock()
			return used, true, nil
		}
		x := lengthExtra[sym-endSymbol-1]
		all := l + x.bits
		length := x.base + int(b>>l&(1<<x.bits-1))
		sym, l = z.dist.find(b >> all)
		if l > n-min(n, all) || l == 0 && n < all+15 {
			z.bits, z.n = b, n
			return used, false, nil
		}
		if l == 0 || sym >= distCodes {
			return used, false, errDeflate
		}
		x = distExtra[sym]
		all += l
		distance := x.base + int(b>>all&(1<<x.bits-1))
		if all += x.bits; all > n {
			z.bits, z.n = b, n
			return used, false, nil
		}
		b, n = b>>all, n-all
		if distance > z.at && !z.full {
			return used, false, errDeflate
		}
		z.length, z.distance = length, distance
		if z.copyMatch(); z.state == inflateCopy {
			break
		}
	}
	z.bits, z.n = b, n
	return used, true, nil
}

// copyMatch continues a copy, at most to the end of the window.
func (z *inflater) copyMatch() {
	k := min(z.length, windowLen-z.at)
	z.length -= k
	from := z.at - z.distance
	if from < 0 { // from before the window last wrapped around
		from += windowLen
		n := copy(z.window[z.at:z.at+k], z.window[from:])
		z.at, k, from = z.at+n, k-n, 0
	}
	for k > 0 { // a copy may include bytes that it has produced itself
		n := copy(z.window[z.at:z.at+k], z.window[from:z.at])
		z.at, k = z.at+n, k-n
	}
	z.state = inflateSymbols
	if z.length > 0 {
		z.state = inflateCopy
	}
}

// fastBits is the length up to which a code is found by a table lookup.
const fastBits = 9

// prefixCode is a code of RFC 1951, 3.2.2, given by the lengths of its words.
type prefixCode struct {
	fast   [1 << fastBits]uint16 // by the next bits: symbol<<4 | length, 0 for longer words
	count  [16]uint16            // how many words there are of each length
	symbol [litCodes + 2]uint16  // in the order of their words
}

// build reports whether the lengths make a code: a complete one, or one word of
// one bit, as in a block with a single distance, or no words at all.
func (c *prefixCode) build(lens []byte) bool {
	c.count = [16]uint16{}
	clear(c.fast[:])
	for _, l := range lens {
		c.count[l]++
	}
	c.count[0] = 0
	var word, at [16]uint16
	left, most := 1, 0
	for l := 1; l < len(c.count); l++ {
		left = left<<1 - int(c.count[l])
		if left < 0 {
			return false
		}
		word[l] = (word[l-1] + c.count[l-1]) << 1
		at[l] = at[l-1] + c.count[l-1]
		if c.count[l] > 0 {
			most = l
		}
	}
	if left > 0 && most > 0 && !(most == 1 && c.count[1] == 1) {
		return false
	}
	for sym, l := range lens {
		if l == 0 {
			continue
		}
		w := word[l]
		word[l]++
		c.symbol[at[l]] = uint16(sym)
		at[l]++
		if l <= fastBits {
			for i := int(bits.Reverse16(w) >> (16 - l)); i < len(c.fast); i += 1 << l {
				c.fast[i] = uint16(sym)<<4 | uint16(l)
			}
		}
	}
	return true
}

// find returns the symbol whose word b begins with, and the word's length; 0 if
// there is none.
func (c *prefixCode) find(b uint64) (sym int, l uint) {
	if e := c.fast[b&(1<<fastBits-1)]; e != 0 {
		return int(e >> 4), uint(e & 15)
	}
	word, first, at := 0, 0, 0
	for l = 1; l < 16; l++ {
		word |= int(b & 1)
		b >>= 1
		k := int(c.count[l])
		if word-k < first {
			return int(c.symbol[at+word-first]), l
		}
		at += k
		first = (first + k) << 1
		word <<= 1
	}
	return 0, 0
}

// fixedCodes are the codes of RFC 1951, 3.2.6. Nothing changes them.
var fixedCodes = func() (f struct{ lit, dist prefixCode }) {
	var lens [litCodes + 2]byte
	for i := range lens {
		switch {
		case i < 144 || i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	f.lit.build(lens[:])
	var dist [distCodes + 2]byte
	for i := range dist {
		dist[i] = 5
	}
	f.dist.build(dist[:])
	return f
}()
