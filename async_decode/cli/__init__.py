"""The command line: one file for each command, ``add_parser`` and ``run`` in each."""
