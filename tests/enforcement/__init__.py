"""Every way by which an action could get past the guard, tried on each framework."""
