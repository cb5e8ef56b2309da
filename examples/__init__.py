"""One example a framework, each a real app with a scripted model: no key, no network."""
