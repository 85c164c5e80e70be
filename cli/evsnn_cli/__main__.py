"""``python -m evsnn_cli``: the same as the ``evsnn`` command."""

from evsnn_cli.main import main

if __name__ == "__main__":
    main()
