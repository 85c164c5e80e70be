"""``python -m evsnn``: the command line."""

from importlib import import_module

if __name__ == "__main__":
    import_module("evsnn_cli.main").main()
