"""Command line of evsnn: parse, call the library, print."""
