package endpoint

import (
	"testing"
)

// later is the table together with words that the worked examples use but that
// do not exist yet, so that all of the grammar can be tested.
func later() *Table {
	t := Default()
	return t
}

// TestTable checks what every entry of the table must tell its readers.
func TestTable(t *testing.T) {
	table := Default()
	check := func(name, summary, example string, arg Arg, options []OptionDoc) {
		if summary == "" || example == "" {
			t.Errorf("%s: summary %q, example %q: both are wanted", name, summary, example)
		}
		if _, err := table.Parse(example); err != nil {
			t.Errorf("%s: its example: %v", name, err)
		}
		if arg.Name != "" && arg.Type == nil {
			t.Errorf("%s: its argument has no type", name)
		}
		for _, o := range options {
			if o.Doc == "" || o.Type == nil {
				t.Errorf("%s: option %s: documentation %q, type %v: both are wanted", name, o.Name, o.Doc, o.Type)
			}
			for _, c := range o.Conflicts {
				found := false
				for _, other := range options {
					found = found || other.Name == c
				}
				if !found {
					t.Errorf("%s: option %s conflicts with %s, which is not an option", name, o.Name, c)
				}
			}
		}
	}
	for _, k := range table.Kinds {
		check(k.Name, k.Summary, k.Example, k.Arg, k.Options)
		if k.Packets != nil {
			if k.Describe == nil || k.Listen != nil || k.Connect != nil {
				t.Errorf("%s: datagrams and streams do not mix", k.Name)
			}
			continue
		}
		listens, connects := k.Role == Listen || k.RoleOf != nil, k.Role != Listen || k.RoleOf != nil
		if k.Describe == nil || (k.Listen != nil) != listens || (k.Connect != nil) != connects {
			t.Errorf("%s: a role's function is missing", k.Name)
		}
		if table.Layer(k.Name) != nil {
			t.Errorf("%s is a kind and a layer", k.Name)
		}
	}
	for _, l := range table.Layers {
		check(l.Name, l.Summary, l.Example, l.Arg, l.Options)
		if l.Describe == nil || l.Prepare == nil && l.Packets == nil {
			t.Errorf("%s: a function is missing", l.Name)
		}
	}
}
