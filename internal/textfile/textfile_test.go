package textfile_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"unicode/utf16"

	"github.com/weir-io/weir/internal/textfile"
)

const text = "a b\r\né𝄞\n"

// inUTF16 is text in UTF-16.
func inUTF16(order binary.AppendByteOrder, mark bool) []byte {
	var b []byte
	if mark {
		b = order.AppendUint16(b, 0xfeff)
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return b
}

// TestDecode: text is decoded as editors write it, and everything else is left alone.
func TestDecode(t *testing.T) {
	for _, b := range [][]byte{
		[]byte(text), []byte("\ufeff" + text),
		inUTF16(binary.LittleEndian, true), inUTF16(binary.BigEndian, true),
		inUTF16(binary.LittleEndian, false), inUTF16(binary.BigEndian, false),
	} {
		if got, err := textfile.Decode(b); err != nil || string(got) != text {
			t.Errorf("%q: %q, %v", b, got, err)
		}
	}
	for _, bad := range []string{"a b\x00", "abc\x00d", "\xff\xfea\x00\x00\x00", "\xff\xfe\x00\xdca\x00", "\xfe\xff\xd8\x00", "\xfe\xff\xd8\x34\x00a"} {
		if got, err := textfile.Decode([]byte(bad)); !errors.Is(err, textfile.ErrNotText) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
	for _, same := range []string{"", "a", "\xff\xfe\xff", "\x80\xffx"} { // not text, and not UTF-16
		if got, err := textfile.Decode([]byte(same)); err != nil || string(got) != same {
			t.Errorf("%q: %q, %v", same, got, err)
		}
	}
}
