"""One module a command: wiring only. Settings come apart here into plain arguments."""
