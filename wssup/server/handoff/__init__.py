"""Live handoff: connections move to another worker with their descriptor and state."""
