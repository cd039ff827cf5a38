"""One file per venue: a table of facts, a few requests, small parsers."""
