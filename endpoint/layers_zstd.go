package endpoint

import "github.com/weir-io/weir/layer/zstd"

func zstdLayer() *Layer {
	return &Layer{
		Name:    "zstd",
		Summary: "compression, as the zstd tool reads and writes it",
		Doc: `Both ends need it. Each write leaves at once. Under tls, the length of compressed data can
reveal a secret that is sent next to something that an attacker may choose.`,
		Example: "8080+zstd,level=3",
		Options: []OptionDoc{
			{Name: "level", Type: Number(1, 22), Doc: "how hard to try, from 1 to 22; the default is 1"},
			{Name: "max-window", Type: SizeUpTo(1 << 30), Doc: "the largest window to accept from the peer; the default is 8m"},
			{Name: "windows", Type: SizeUpTo(1 << 40), Doc: "memory for windows above 128k, on all connections together; weir itself never asks for such windows; the default is 128m"},
		},
		Describe: func(*Part, Role) string { return "compressed with zstd" },
		Prepare: func(_ *Env, p *Part, _ Role) (Prepared, error) {
			l, err := zstd.New(zstd.Config{Level: int(p.Int("level")), MaxWindow: int(p.Size("max-window")), Windows: int(p.Size("windows"))})
			if err != nil {
				return nil, err
			}
			return Always(l), nil
		},
	}
}
