package main

func (r *report) markdown() string { return "" }

func (r *report) plots(string) error { return nil }
