"""What the kernel tells of sockets and processes, whoever asks: this package changes nothing.

``sockdiag``, ``tcp`` and ``unix`` (pure) know the bytes and the lines; ``sockets`` asks for them,
``procfs`` reads /proc (proc(5)), ``borrowing`` asks a duplicate of another process's socket.
"""
