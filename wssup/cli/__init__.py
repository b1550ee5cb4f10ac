"""The ``wssup`` command, a file per subcommand."""
