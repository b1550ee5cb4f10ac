"""A worker's part in topics: who is subscribed here, and what applications call."""
