package weir

func candidates() []candidate { return []candidate{portableCandidate} }
