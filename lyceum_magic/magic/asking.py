"""Secrets that are asked for: typed unseen, and never part of a notebook."""

from __future__ import annotations

from ..exceptions import OptionError


def ask_secret(prompt: str, otherwise: str) -> str:
    """What the user types.

    Args:
        prompt: names what is asked for.
        otherwise: what to do where nobody can be asked, in words.

    Raises:
        OptionError: nobody can be asked, or nothing was typed.
    """
    import getpass

    from IPython.core.error import StdinNotImplementedError

    try:
        answer = getpass.getpass(f"{prompt}: ").strip()
    except (StdinNotImplementedError, EOFError):  # papermill, nbclient; a closed stdin
        raise OptionError(f"{prompt}: nobody can be asked here; {otherwise}.") from None
    if not answer:
        raise OptionError(f"{prompt}: nothing was typed, so nothing was done.")
    return answer
