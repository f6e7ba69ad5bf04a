package expat_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/weir-io/weir"
	"github.com/weir-io/weir/hosts/expat"
	"github.com/weir-io/weir/weirtest"
)

// log makes a parser that says what it hears. Text is joined: its pieces depend on how the
// bytes came.
func log(say func(format string, args ...any)) *expat.Parser {
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			say("text %q", text.String())
			text.Reset()
		}
	}
	return expat.New(expat.Handler{
		Start: func(name string, attributes map[string]string) error {
			flush()
			say("<%s", name)
			if name == "unwanted" {
				return errors.New("unwanted")
			}
			for _, k := range slices.Sorted(maps.Keys(attributes)) {
				say(" %s=%q", k, attributes[k])
			}
			return nil
		},
		End: func(name string) error {
			flush()
			say(">%s", name)
			if name == "refused" {
				return errors.New("refused")
			}
			if name == "panic" {
				panic("a handler's")
			}
			return nil
		},
		Text: func(s string) error { text.WriteString(s); return nil },
		Lost: func(err error) { flush() },
	})
}

const document = `<?xml version='1.0' encoding='UTF-8'?>
<stream to="weir &amp; more" id='1'>
  <message>h\u00e9llo &lt;you&gt; <![CDATA[<raw>]]></message><!-- not told -->
  <empty/>
</stream>`

// TestChopped: a document means the same however its bytes are split.
func TestChopped(t *testing.T) {
	for _, s := range []string{
		strings.ReplaceAll(document, `\u00e9`, "\u00e9"),
		"<a><b></a>",
		"<a>text<refused/>more<b/></a>",
		"<a><b>",
		"<a/>trailing",
	} {
		weirtest.EveryChop(t, []byte(s), func(say func(string, ...any)) weir.Protocol { return log(say) })
	}
}

// feed returns what was told, and how the connection ended.
func feed(t *testing.T, s string) (told []string, err error) {
	t.Helper()
	r := weirtest.NewRecorder(t)
	r.Connect(log(func(f string, args ...any) { told = append(told, fmt.Sprintf(f, args...)) }))
	r.DeliverString(s)
	if lost, _ := r.Lost(); !lost {
		r.DeliverEOF()
	}
	lost, err := r.Lost()
	if !lost {
		t.Fatal("the connection did not end")
	}
	return told, err
}

func TestEvents(t *testing.T) {
	told, err := feed(t, "<a x='1'>t<b/></a>")
	if want := []string{"<a", ` x="1"`, `text "t"`, "<b", ">b", ">a"}; err != nil || !slices.Equal(told, want) {
		t.Errorf("%q, %v, want %q", told, err, want)
	}
	if _, err := feed(t, "<a>"+strings.Repeat("a long text without a tag ", 100_000)+"</a>"); err != nil {
		t.Errorf("2.6 MB of text: %v", err)
	}
	if _, err := feed(t, "<a>"+strings.Repeat("<b c='"+strings.Repeat("d", 2000)+"'/>", 1000)+"</a>"); err != nil {
		t.Errorf("2 MB of elements: %v", err)
	}
}

// TestRefused: what a peer may not send loses the connection, with an error that says why.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"deep", strings.Repeat("<a>", 257), expat.ErrDepth},
		{"long", "<a " + strings.Repeat("x", 2<<20), expat.ErrToken},
		{"long comment", "<a><!-- " + strings.Repeat("x", 2<<20), expat.ErrToken},
		{"entities", `<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>`, expat.ErrDoctype},
	} {
		if _, err := feed(t, c.text); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	var syntax *expat.SyntaxError
	if _, err := feed(t, "<a>\n <b></a>"); !errors.As(err, &syntax) || syntax.Line != 2 {
		t.Errorf("syntax: %v, want an error in line 2", err)
	}
	if _, err := feed(t, "<a>"); !errors.As(err, &syntax) {
		t.Errorf("cut off: %v", err)
	}
	told, err := feed(t, "<a><refused/><b/></a>")
	if err == nil || err.Error() != "refused" || slices.Contains(told, "<b") {
		t.Errorf("refused: %v after %q", err, told)
	}
	// libexpat tells of the end of an empty element although it was stopped at its start.
	if told, err := feed(t, "<a><unwanted/></a>"); err == nil || err.Error() != "unwanted" || !slices.Equal(told, []string{"<a", "<unwanted"}) {
		t.Errorf("unwanted: %v after %q", err, told)
	}
	if _, err := feed(t, "<a><panic/></a>"); err == nil || !strings.Contains(err.Error(), "a handler's") {
		t.Errorf("panic: %v", err)
	}
}
