"""The master and all that it owns: listeners, slots, rollouts, processes."""
