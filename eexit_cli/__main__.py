"""``python -m eexit_cli`` is the ``eexit`` command."""

from eexit_cli.main import run

if __name__ == "__main__":
    run()
