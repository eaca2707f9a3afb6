"""The one error that a user can cause."""


class InputError(Exception):
    """Something the user gave is wrong. The message says what, where and how to mend it, in one line.

    The command line prints the message alone and ends with exit code 2; every other exception is a
    bug and shows its traceback.
    """
