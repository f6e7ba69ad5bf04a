package advice

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weir-io/weir/certs"
	"github.com/weir-io/weir/endpoint"
	"github.com/weir-io/weir/file"
)

// Prepare explains an endpoint that cannot be set up, for instance because a
// certificate is missing.
func Prepare(e *endpoint.Endpoint, err error) *Failure {
	var (
		prepared *endpoint.LayerError
		base     *endpoint.KindError
		option   *endpoint.OptionError
		secret   *endpoint.SecretError
		output   *endpoint.OutputFileError
		path     *fs.PathError
	)
	f := &Failure{Problem: "cannot set up " + e.Label() + ": ", Facts: []any{"endpoint", e.Label()}}
	cause := err
	if errors.As(err, &prepared) {
		cause = prepared.Err
		f.Problem += "layer " + prepared.Layer + ": "
		f.Facts = append(f.Facts, "layer", prepared.Layer)
	}
	if errors.As(err, &base) {
		cause = base.Err
		if f.Next = nextForMissing(cause); f.Next == "" && base.Kind == "replay" {
			f.Next = "A recording is what +record:FILE writes: weir help record"
		}
	}
	switch {
	case errors.As(err, &secret):
		f.Next = secret.Next
	case errors.As(err, &option):
		f.Problem += option.Option + "=" + option.Value + ": "
		f.Facts = append(f.Facts, "option", option.Option, "value", option.Value)
		if filepath.Dir(option.File) == option.Value {
			f.Problem += option.File + ": " // it names the directory
		}
		f.Next = nextForFile(option)
	case errors.As(err, &output):
		f.Next = nextForOutput(output)
	case errors.As(err, &path) && path.Path != e.Base.ArgText():
		f.Problem += path.Path + ": "
	}
	f.Problem += whyFile(cause)
	f.Facts = append(f.Facts, "reason", whyFile(cause))
	return f
}

// whyFile is why, without the name of the file.
func whyFile(err error) string {
	var cert *certs.FileError
	if !errors.As(err, &cert) {
		return Why(err)
	}
	if cert.Problem == certs.Malformed && cert.Err != nil {
		return fmt.Sprintf("%s: %v", cert.Problem, cert.Err)
	}
	return string(cert.Problem)
}

// nextForOutput says what to do about a file that a recording cannot be written to.
func nextForOutput(e *endpoint.OutputFileError) string {
	switch e.Problem {
	case endpoint.Link:
		return "It would empty that file. If you mean that file, name it directly: record:" + endpoint.Quote(e.Target)
	case endpoint.InUse:
		return "Each recording needs a file of its own: pick another name, or end the one that writes it."
	case endpoint.SecondName, endpoint.OtherOwner:
	}
	return "It is left alone. Pick another name, or remove it first: rm " + shellWord(e.Path)
}

// nextForMissing says what to do about a file that does not exist, or that this
// user may not read; "" for other errors.
func nextForMissing(err error) string {
	var path *fs.PathError
	switch {
	case !errors.As(err, &path):
	case errors.Is(err, fs.ErrPermission):
		return "This user may not open it: ls -l " + shellWord(path.Path)
	case !errors.Is(err, fs.ErrNotExist):
	case filepath.IsAbs(path.Path):
		return "Nothing is there: ls -l " + shellWord(filepath.Dir(path.Path)) + " shows what is."
	default:
		where := "the directory that weir was started in"
		if dir, err := os.Getwd(); err == nil {
			where = dir
		}
		return "Nothing is there. A path that does not begin with / is looked for in " + where
	}
	return ""
}

// nextForNotFile says what to write instead for what is no file.
func nextForNotFile(e *endpoint.Endpoint, other *file.NotFileError) string {
	path := e.Base.ArgText()
	switch kind := other.Mode.Type(); {
	case kind&fs.ModeNamedPipe != 0:
		return "Named pipes have a kind of their own: pipe:" + endpoint.Quote(path)
	case kind&fs.ModeSocket != 0:
		return "Sockets have a kind of their own: unix:" + endpoint.Quote(path)
	case kind == fs.ModeDir:
		return "Name a file in it: file:" + endpoint.Quote(filepath.Join(path, "NAME"))
	case path == "/dev/null" || path == "/dev/zero":
		return "weir has a kind of its own for that: " + filepath.Base(path)
	case strings.HasPrefix(path, "/dev/tty"):
		return "Serial lines have a kind of their own: serial:" + endpoint.Quote(path)
	}
	return "The shell can open it: write - in its place, and < " + shellWord(path) + " or > " + shellWord(path)
}

// nextForFile says what to do about an option's file.
func nextForFile(e *endpoint.OptionError) string {
	var cert *certs.FileError
	if !errors.As(e.Err, &cert) {
		return nextForMissing(e.Err)
	}
	file := shellWord(cert.File)
	switch cert.Problem {
	case certs.NoKey:
		switch {
		case e.Option == "key":
			return "It takes the certificate's private key, in PEM, which begins with -----BEGIN PRIVATE KEY-----"
		case e.File == e.Value || filepath.Base(e.File) == filepath.Base(e.Value):
			return "Where is the certificate's key? Add ,key=FILE"
		}
		return "Put the certificate's key beside it: " + strings.TrimSuffix(e.File, filepath.Ext(e.File)) + ".key"
	case certs.EncryptedKey:
		return "weir asks for no passphrase. Decrypt it: openssl pkey -in " + file + " -out plain.key, and give that to no one else."
	case certs.OtherKey:
		return "If they belong together, openssl x509 -noout -pubkey -in CERT and openssl pkey -pubout -in KEY print the same."
	case certs.NoCertificate:
		return "It takes a file that begins with -----BEGIN CERTIFICATE-----. From DER: openssl x509 -inform der -in " + file + " -out new.pem"
	case certs.Malformed:
	}
	return "Look at it: openssl x509 -noout -text -in " + file + " for a certificate, openssl pkey -noout -text for a key."
}

// shellWord quotes a word for a shell.
func shellWord(s string) string {
	plain := !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+,:@%=", r)
	})
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
