"""Each adapter on its real framework."""
