package machine

import "os"

// Available is how much memory this process may use.
func Available() Memory { return MemoryIn(os.DirFS("/")) }
