"""Topics: one message to many connections, on the bus between the workers of an instance."""
