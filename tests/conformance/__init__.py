"""The same scenarios on every framework, with the real framework and a scripted model."""
