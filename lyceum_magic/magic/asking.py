"""Secrets that the user types unseen, and that never become part of a notebook."""

from __future__ import annotations

from ..exceptions import OptionError


def ask_secret(prompt: str, otherwise: str) -> str:
    """Ask the user for a secret, and return it.

    Args:
        prompt: the name of the secret.
        otherwise: advice for a notebook that runs without a user.

    Raises:
        OptionError: the user cannot be asked, or typed nothing.
    """
    import getpass

    from IPython.core.error import StdinNotImplementedError

    try:
        answer = getpass.getpass(f"{prompt}: ").strip()
    except (StdinNotImplementedError, EOFError):  # papermill, nbclient; a closed stdin
        raise OptionError(f"{prompt}: no user can be asked here; {otherwise}.") from None
    if not answer:
        raise OptionError(f"{prompt}: nothing was typed, so nothing was done.")
    return answer


def ask_yes(question: str, otherwise: str) -> bool:
    """Ask the user a question, and return whether the answer is yes.

    Args:
        otherwise: advice for a notebook that runs without a user.

    Raises:
        OptionError: the user cannot be asked.
    """
    from IPython.core.error import StdinNotImplementedError

    try:
        answer = input(f"{question} [y/N] ")
    except (StdinNotImplementedError, EOFError):  # papermill, nbclient; a closed stdin
        raise OptionError(f"{question} No user can be asked here; {otherwise}.") from None
    return answer.strip().lower() in ("y", "yes")
