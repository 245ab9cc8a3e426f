"""DataFrame in, DataFrame out: no session, no input or output, no actions."""
