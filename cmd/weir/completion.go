package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-io/weir/endpoint"
)

// completion prints a script that completes weir's words in a shell. It is made
// from the same tables as everything else.
func (c *command) completion(words []string) int {
	shells := []string{"bash", "zsh", "fish"}
	if len(words) != 1 {
		return c.usage(&usageError{problem: "which shell?", hint: "weir completion " + strings.Join(shells, "|"), topic: "completion"})
	}
	switch words[0] {
	case "bash":
		return c.print(c.bash())
	case "zsh":
		return c.print(c.zsh())
	case "fish":
		return c.print(c.fish())
	}
	e := &usageError{problem: fmt.Sprintf("no completion for %q", words[0]), hint: "there is one for " + strings.Join(shells, ", "), topic: "completion"}
	if near := endpoint.Nearest(words[0], shells); near != "" {
		e.hint = fmt.Sprintf("did you mean %q?", near)
	}
	return c.usage(e)
}

// bases are the words that an endpoint can begin with, ready for what follows.
func (c *command) bases() []string {
	var words []string
	for _, k := range c.table.Kinds {
		if k.Arg.Name == "" || k.Arg.Optional {
			words = append(words, k.Name)
		}
		if k.Arg.Name != "" {
			words = append(words, k.Name+":")
		}
	}
	return words
}

// parts are the lines "name option…" of every kind and layer; an option that
// takes a value ends in =.
func (c *command) parts() [][2]string {
	var parts [][2]string
	add := func(name string, options []endpoint.OptionDoc) {
		var words []string
		for _, o := range options {
			w := o.Name
			if o.Type.TakesValue() {
				w += "="
			}
			words = append(words, w)
		}
		parts = append(parts, [2]string{name, strings.Join(words, " ")})
	}
	for _, k := range c.table.Kinds {
		add(k.Name, k.Options)
	}
	for _, l := range c.table.Layers {
		add(l.Name, l.Options)
	}
	return parts
}

func flagWords() []string {
	var words []string
	for _, d := range flagDocs() {
		words = append(words, "--"+d.name)
	}
	return words
}

// freeFlags are the flags whose value can be anything, as a pattern.
func freeFlags() string {
	var words []string
	for _, d := range flagDocs() {
		if d.value != "" && d.words == nil {
			words = append(words, "--"+d.name)
		}
	}
	return strings.Join(words, "|")
}

func (c *command) bash() string {
	var cases, values strings.Builder
	for _, p := range c.parts() {
		fmt.Fprintf(&cases, "        %s) options='%s' ;;\n", p[0], p[1])
	}
	for _, d := range flagDocs() {
		if d.words != nil {
			fmt.Fprintf(&values, "        --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", d.name, strings.Join(d.words, " "))
		}
	}
	return `# weir's words for bash: source <(weir completion bash)
_weir_options() {
    # The options of the part that the word $1 ends with.
    local part=${1##*+} name options=
    case $part in
        [0-9]*|:*) name=tcp-listen ;;
        /*|'~/'*) name=unix ;;
        -*) name=stdio ;;
        *) name=${part%%[:,]*} ;;
    esac
    case $name in
` + cases.String() + `        *) options='` + c.optionsOf("tcp") + `' ;;
    esac
    printf '%s' "$options"
}
_weir() {
    local line=${COMP_LINE:0:COMP_POINT} cur prev i n=0 words=()
    # bash splits words at : and =, which are within endpoints: split at blanks.
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=('')
    cur=${words[-1]} prev=${words[-2]:-}
    COMPREPLY=()
    case $prev in
` + values.String() + `        ` + freeFlags() + `) return ;;
        help|--help) [[ ${#words[@]} -eq 3 ]] && COMPREPLY=($(compgen -W 'kinds layers ` + strings.Join(append(c.table.KindNames(), c.table.LayerNames()...), " ") + `' -- "$cur")); return ;;
        completion) [[ ${#words[@]} -eq 3 ]] && COMPREPLY=($(compgen -W 'bash zsh fish' -- "$cur")); return ;;
    esac
    case $cur in
        --*) COMPREPLY=($(compgen -W '` + strings.Join(flagWords(), " ") + `' -- "$cur")); return ;;
        *,*=*) case ${cur##*,} in
            ` + c.pathOptions("=*|") + `=*) COMPREPLY=($(compgen -P "${cur%"${cur##*=}"}" -f -- "${cur##*=}")) ;;
            esac ;;
        *,*) COMPREPLY=($(compgen -P "${cur%,*}," -W "$(_weir_options "${cur%,*}")" -- "${cur##*,}")) ;;
        *+*) COMPREPLY=($(compgen -P "${cur%+*}+" -W '` + strings.Join(c.table.LayerNames(), " ") + `' -- "${cur##*+}")) ;;
        unix:*|unix-listen:*|pipe:*) COMPREPLY=($(compgen -P "${cur%%:*}:" -f -- "${cur#*:}")) ;;
        /*|'~/'*) COMPREPLY=($(compgen -f -- "$cur")) ;;
        *)
            [[ ${#words[@]} -eq 2 ]] && n=1
            COMPREPLY=($(compgen -W '- ` + strings.Join(c.bases(), " ") + `' -- "$cur"))
            ((n)) && COMPREPLY+=($(compgen -W '` + strings.Join(verbs(), " ") + `' -- "$cur")) ;;
    esac
    # What bash takes for the word begins after the last : or = of ours.
    local before=${cur%"${cur##*[:=]}"}
    for i in "${!COMPREPLY[@]}"; do
        case ${COMPREPLY[i]} in
            *[=:]|*/) compopt -o nospace 2>/dev/null ;;
        esac
        COMPREPLY[i]=${COMPREPLY[i]#"$before"}
    done
}
complete -F _weir weir
`
}

// pathOptions are the options whose value is a file's path.
func (c *command) pathOptions(sep string) string {
	var names []string
	for _, p := range c.optionDocs() {
		if p.doc.Type == endpoint.Path && !slices.Contains(names, p.doc.Name) {
			names = append(names, p.doc.Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, sep)
}

func (c *command) optionsOf(name string) string {
	for _, p := range c.parts() {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

func (c *command) zsh() string {
	var cases, flags, kinds strings.Builder
	for _, p := range c.parts() {
		fmt.Fprintf(&cases, "        %s) print -r -- '%s' ;;\n", p[0], p[1])
	}
	for _, d := range flagDocs() {
		doc, _, _ := strings.Cut(d.doc, "\n")
		fmt.Fprintf(&flags, "            '--%s:%s'\n", d.name, strings.ReplaceAll(doc, ":", "\\:"))
	}
	for _, k := range c.table.Kinds {
		fmt.Fprintf(&kinds, "            '%s:%s'\n", k.Name, k.Summary)
	}
	return `#compdef weir
# weir's words for zsh: source <(weir completion zsh), or put this into a file
# named _weir in a directory of $fpath.
_weir_options() {
    # The options of the part that the word $1 ends with.
    local part=${1##*+}
    case $part in
        ([0-9]*|:*) part=tcp-listen ;;
        (/*|'~/'*) part=unix ;;
        (-*) part=stdio ;;
        (*) part=${part%%[:,]*} ;;
    esac
    case $part in
` + cases.String() + `        *) print -r -- '` + c.optionsOf("tcp") + `' ;;
    esac
}
_weir() {
    local cur=$words[CURRENT] prev=${words[CURRENT-1]}
    local -a list
    case $prev in
` + c.flagValues("        (--%s) compadd -- %s; return ;;\n") + `        (` + freeFlags() + `) return ;;
        (help) if ((CURRENT == 3)); then compadd -- kinds layers ` + strings.Join(append(c.table.KindNames(), c.table.LayerNames()...), " ") + `; return; fi ;;
        (completion) if ((CURRENT == 3)); then compadd -- bash zsh fish; return; fi ;;
    esac
    case $cur in
        (--*)
            list=(
` + flags.String() + `            )
            _describe -o flag list ;;
        (*,(` + c.pathOptions("|") + `)=*) compset -P '*='; _files ;;
        (*,*=*) ;;
        (*,*) compset -P '*,'; list=($(_weir_options "${cur%,*}")); compadd -S '' -- $list ;;
        (*+*) compset -P '*+'; compadd -S '' -- ` + orDashes(strings.Join(c.table.LayerNames(), " ")) + ` ;;
        (unix:*|unix-listen:*|pipe:*) compset -P '*:'; _files ;;
        (/*|'~/'*) _files ;;
        (*)
            list=(
` + kinds.String() + `            )
            _describe -t kinds kind list -S ''
            if ((CURRENT == 2)); then compadd -- ` + strings.Join(verbs(), " ") + `; fi ;;
    esac
}
if [[ $funcstack[1] == _weir ]]; then _weir "$@"; elif (($+functions[compdef])); then compdef _weir weir; fi
`
}

// orDashes keeps compadd from taking an empty list for a mistake.
func orDashes(s string) string {
	if s == "" {
		return "''"
	}
	return s
}

// flagValues writes a line for each flag whose value is one of words.
func (c *command) flagValues(format string) string {
	var b strings.Builder
	for _, d := range flagDocs() {
		if d.words != nil {
			fmt.Fprintf(&b, format, d.name, strings.Join(d.words, " "))
		}
	}
	return b.String()
}

func (c *command) fish() string {
	var b strings.Builder
	b.WriteString(`# weir's words for fish: weir completion fish | source
function __weir_options
    # The options of the part that the word ends with, after what is written.
    set -l cur (commandline -ct)
    string match -q '*,*' -- $cur; or return
    set -l before (string replace -r ',[^,]*$' ',' -- $cur)
    set -l part (string replace -r '.*\+' '' -- (string replace -r ',.*' '' -- (string replace -r '^.*\+' '' -- $before)))
    set -l name (string replace -r '[:,].*' '' -- $part)
    if string match -qr '^[0-9:]' -- $part
        set name tcp-listen
    else if string match -qr '^~?/' -- $part
        set name unix
    else if string match -qr '^-' -- $part
        set name stdio
    end
    set -l options
    switch $name
`)
	for _, p := range c.parts() {
		fmt.Fprintf(&b, "        case %s\n            set options %s\n", p[0], p[1])
	}
	fmt.Fprintf(&b, `        case '*'
            set options %s
    end
    for o in $options
        echo $before$o
    end
end
function __weir_files
    # The files that the value of the last option begins with.
    set -l cur (commandline -ct)
    set -l before (string replace -r '=[^=]*$' '=' -- $cur)
    for f in (__fish_complete_path (string replace -r '.*=' '' -- $cur))
        echo $before$f
    end
end
function __weir_layers
    set -l cur (commandline -ct)
    string match -q '*+*' -- $cur; or return
    set -l before (string replace -r '[^+]*$' '' -- $cur)
    for l in %s
        echo $before$l
    end
end
complete -c weir -f
`, c.optionsOf("tcp"), strings.Join(c.table.LayerNames(), " "))
	for _, d := range flagDocs() {
		doc, _, _ := strings.Cut(d.doc, "\n")
		line := fmt.Sprintf("complete -c weir -l %s -d '%s'", d.name, doc)
		if d.letter != "" {
			line += " -s " + d.letter
		}
		if d.words != nil {
			line += " -x -a '" + strings.Join(d.words, " ") + "'"
		} else if d.value != "" {
			line += " -x"
		}
		b.WriteString(line + "\n")
	}
	for _, v := range verbs() {
		fmt.Fprintf(&b, "complete -c weir -n __fish_use_subcommand -a %s\n", v)
	}
	for _, k := range c.table.Kinds {
		word := k.Name
		if k.Arg.Name != "" && !k.Arg.Optional {
			word += ":"
		}
		fmt.Fprintf(&b, "complete -c weir -n 'not __fish_seen_subcommand_from completion version demo help quote' -a '%s' -d '%s'\n", word, k.Summary)
	}
	fmt.Fprintf(&b, "complete -c weir -n '__fish_seen_subcommand_from help' -a 'kinds layers %s'\n", strings.Join(append(c.table.KindNames(), c.table.LayerNames()...), " "))
	b.WriteString("complete -c weir -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'\n")
	fmt.Fprintf(&b, "complete -c weir -n 'string match -qr \",(%s)=[^,]*\\$\" -- (commandline -ct)' -a '(__weir_files)'\n", c.pathOptions("|"))
	b.WriteString("complete -c weir -n 'string match -q \"*,*\" -- (commandline -ct)' -a '(__weir_options)'\n")
	b.WriteString("complete -c weir -n 'string match -q \"*+*\" -- (commandline -ct)' -a '(__weir_layers)'\n")
	return b.String()
}
