package load

import (
	"os"
	"time"
)

// window is the counted time.
type window struct {
	spec       *Spec
	base       time.Time
	from, to   int64 // ns since base
	open, shut bool
	pids       []int
	server     int64
	self       int64
	res        Result
	hist       Histogram
}

// newWindow opens after the warm-up, from now on.
func newWindow(s *Spec) *window {
	w := &window{spec: s, base: time.Now()}
	w.from = int64(s.Warm)
	w.to = w.from + int64(s.Run)
	return w
}

func (w *window) now() int64 { return int64(time.Since(w.base)) }

// step opens and shuts the window when it is time.
func (w *window) step(now int64) error {
	switch {
	case !w.open && now >= w.from:
		w.pids = Tree(w.spec.PIDs)
		var err error
		if w.server, err = w.cpu(); err != nil {
			return err
		}
		if w.self, err = CPUTime(os.Getpid()); err != nil {
			return err
		}
		w.from = w.now()
		w.to = w.from + int64(w.spec.Run)
		w.open = true
	case w.open && !w.shut && now >= w.to:
		server, err := w.cpu()
		if err != nil {
			return err
		}
		self, err := CPUTime(os.Getpid())
		if err != nil {
			return err
		}
		w.to = w.now()
		w.shut = true
		w.res.ServerCPU = float64(server-w.server) / 1e9
		w.res.LoadCPU = float64(self-w.self) / 1e9
		w.res.Seconds = float64(w.to-w.from) / 1e9
	}
	return nil
}

// cpu is the CPU time of the server's processes. Where each session may have one of its
// own, those that have ended since count as far as their parent has waited for them.
func (w *window) cpu() (int64, error) {
	if w.spec.Kind != Sessions {
		return CPUTime(w.pids...)
	}
	sum, err := CPUTime(w.spec.PIDs...)
	for _, pid := range w.spec.PIDs {
		sum += Reaped(pid)
	}
	return sum, err
}

// counting reports whether what happens now counts.
func (w *window) counting() bool { return w.open && !w.shut }

func (w *window) result() Result {
	r := w.res
	r.P50, r.P90, r.P99 = w.hist.Quantile(0.5), w.hist.Quantile(0.9), w.hist.Quantile(0.99)
	r.P999, r.Max = w.hist.Quantile(0.999), w.hist.Max()
	return r
}
