"""One file a way of attaching misstep: how to build an app from a script, and how to run it."""
