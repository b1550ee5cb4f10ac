"""The bridge: one process of an instance that joins its bus to those of other instances, over a
Redis or Valkey server.

To the workers it is a node of the bus like any of them, interested in every topic. What they
publish it publishes on the server; what others publish there it puts on the bus, under its own
number, with its first source. While the server is away the instance lives on without it.

The files: ``main`` is the process, ``node`` stands between bus and server, ``redis`` has the
connection and gets it back, ``session`` is what is done while there is one, ``links`` speaks with
one server and ``fleet`` knows which of a Cluster's it is. ``streams`` keeps and reads the history.
``packing``, ``outbox``, ``chains``, ``hearing``, ``recovery``, ``wishes`` and ``pauses`` are pure.
"""
