"""Rich display as in a notebook: IPython's functions and its display protocol, without IPython."""

from __future__ import annotations

import sys
import types

from .frames import send
from .surroundings import shell_made

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Optional, Protocol

    Bundle = dict[str, Any]
    Types = Optional[Collection[str]]  # MIME types; None: all
    Found = tuple[bool, Any]  # whether there is such a method and it worked, and what it gave

    class Catcher(Protocol):
        """A taker of outputs in place of the cell, such as an `Output` widget."""

        def show(self, data: Bundle, metadata: Bundle | None) -> None: ...

        def show_widget(self, widget: Any) -> None: ...

        def clear(self, wait: bool) -> None: ...


PACKAGE = __name__.rpartition(".")[0]
#: MIME type -> the method that makes it, and the types that the method may return.
METHODS: dict[str, tuple[str, tuple[type, ...]]] = {
    "text/html": ("_repr_html_", (str,)),
    "text/markdown": ("_repr_markdown_", (str,)),
    "image/svg+xml": ("_repr_svg_", (str,)),
    "image/png": ("_repr_png_", (bytes, str)),
    "application/pdf": ("_repr_pdf_", (bytes, str)),
    "image/jpeg": ("_repr_jpeg_", (bytes, str)),
    "text/latex": ("_repr_latex_", (str,)),
    "application/json": ("_repr_json_", (list, dict)),
    "application/javascript": ("_repr_javascript_", (str,)),
}


#: The catchers that take outputs now, the innermost last.
catchers: list[Catcher] = []


def display(
    *objs: Any,
    include: Types = None,
    exclude: Types = None,
    metadata: Bundle | None = None,
    transient: Bundle | None = None,
    display_id: Any = None,
    raw: bool = False,
    clear: bool = False,
    **kwargs: Any,
) -> DisplayHandle | None:
    """Show objects; the arguments are those of `IPython.display.display`."""
    transient = {} if transient is None else transient
    metadata = {} if metadata is None else metadata
    if display_id:
        if display_id is True:
            display_id = new_id()
        transient["display_id"] = display_id
    if kwargs.get("update") and "display_id" not in transient:
        raise TypeError("display_id required for update_display")
    if display_id and not objs:
        objs, raw = ({},), True  # a place that an update will fill
    if clear:
        clear_output(wait=True)
    for value in objs:
        if raw:
            publish_display_data(value, metadata, transient=transient, **kwargs)
            continue
        data, about = bundle_of(value, include, exclude)
        if data:
            publish_display_data(data, merged(about, metadata), transient=transient, **kwargs)
    return DisplayHandle(display_id) if display_id else None


def update_display(obj: Any, *, display_id: Any, **kwargs: Any) -> None:
    """Replace what was shown under the id."""
    kwargs["update"] = True
    display(obj, display_id=display_id, **kwargs)


def clear_output(wait: bool = False) -> None:
    """Empty the cell; with `wait`, when the next output comes."""
    publisher = publisher_in_place()
    if publisher is not None:
        publisher.clear_output(wait)
    elif catchers:
        catchers[-1].clear(wait)
    else:
        send("clear", {"wait": bool(wait)})


def publish_display_data(
    data: Bundle,
    metadata: Bundle | None = None,
    *,
    transient: Bundle | None = None,
    update: bool = False,
    **kwargs: Any,
) -> None:
    """Show a MIME bundle as it is.

    Args:
        kwargs: further arguments of IPython's (`source`, ...), which have no effect.
    """
    for bundle in (data, metadata):
        if not isinstance(bundle, (dict, type(None))) or (bundle is None and bundle is data):
            raise TypeError(f"a MIME bundle and its metadata must be dicts, got: {bundle!r}")
    display_id = (transient or {}).get("display_id")
    _send(data, metadata, display_id=None if display_id is None else str(display_id), update=update)


class DisplayHandle:
    """A place in the cell that can be filled again."""

    def __init__(self, display_id: Any = None) -> None:
        self.display_id = new_id() if display_id is None else display_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} display_id={self.display_id}>"

    def display(self, obj: Any, **kwargs: Any) -> None:
        """Show it once more, and in its present places."""
        display(obj, display_id=self.display_id, **kwargs)

    def update(self, obj: Any, **kwargs: Any) -> None:
        """Show it in its present places."""
        update_display(obj, display_id=self.display_id, **kwargs)


def show_result(value: Any) -> None:
    """Show the value of the cell's last expression."""
    data, metadata = bundle_of(value)
    if data:
        _send(data, metadata, is_result=True)


def new_id() -> str:
    import os

    return os.urandom(16).hex()


def merged(into: Any, other: Any) -> Any:
    """Return both dicts as one, nested dicts merged too; where both have a value, `other` wins."""
    if not isinstance(into, dict) or not isinstance(other, dict):
        return other
    return {**into, **{key: merged(into.get(key), value) for key, value in other.items()}}


def _send(
    data: Bundle,
    metadata: Bundle | None,
    display_id: str | None = None,
    update: bool = False,
    is_result: bool = False,
) -> None:
    publisher = publisher_in_place()
    if publisher is None:
        send_bundle(data, metadata, display_id=display_id, update=update, result=is_result)
        return
    transient = {"display_id": display_id} if display_id else {}
    publisher.publish(data=data, metadata=metadata, transient=transient, update=update)


def send_bundle(data: Bundle, metadata: Bundle | None, **head: Any) -> None:
    """Show a bundle in the innermost catcher of outputs, or else in the cell.

    Args:
        head: `display_id` and `update`, if the bundle has them; `result` if it shows the value of
            the last expression.
    """
    if catchers and not head.get("update"):
        catchers[-1].show(data, metadata)
        return
    head = {name: value for name, value in head.items() if value}
    shown = {"data": jsonable(data), "metadata": jsonable(metadata or {}), **head}
    send("display", shown, readable=readable(data))


# What an object looks like.


def bundle_of(value: Any, include: Types = None, exclude: Types = None) -> tuple[Bundle, Bundle]:
    """Return MIME type -> data, MIME type -> metadata; both empty if the object showed itself."""
    shown, _ = attempt(method_of(value, "_ipython_display_"))
    if shown:
        return {}, {}

    def is_wanted(kind: str) -> bool:
        return not (include and kind not in include) and not (exclude and kind in exclude)

    _, bundle = attempt(method_of(value, "_repr_mimebundle_"), include=include, exclude=exclude)
    data, metadata = both_of(checked(bundle, (dict,), "_repr_mimebundle_", value), {})
    data = {kind: item for kind, item in (data or {}).items() if is_wanted(kind)}
    metadata = {kind: item for kind, item in metadata.items() if is_wanted(kind)}
    if is_wanted("text/plain") and "text/plain" not in data:
        _, text = attempt(text_printer_for(value), value)
        if text is not None:
            data["text/plain"] = text
    for kind, (name, types_) in METHODS.items():
        printer = printer_for(value, kind)
        if not is_wanted(kind) or (kind in data and printer is None):
            continue
        if printer is not None:
            _, made = attempt(printer, value)
        else:
            _, made = attempt(method_of(value, name))
        item, about = both_of(checked(made, types_, name, value), None)
        if item is not None:
            data[kind] = item
        if about is not None:
            metadata[kind] = about
    return data, metadata


def method_of(value: Any, name: str) -> Callable[..., Any] | None:
    """Return a method of an instance, or one of a class that is meant for classes; else None."""
    try:
        # An object that has every attribute has none of these.
        if getattr(value, "_ipython_canary_method_should_not_exist_", None) is not None:
            return None
        method = getattr(value, name, None)
    except Exception:  # noqa: BLE001 - whatever the object's own __getattr__ raises
        return None
    if isinstance(value, type) and not isinstance(method, types.MethodType):
        return None
    return method if callable(method) else None


def attempt(method: Callable[..., Any] | None, *args: Any, **named: Any) -> Found:
    """Call a method, if there is one; show its exception and go on, as IPython does."""
    if method is None:
        return False, None
    try:
        return True, method(*args, **named)
    except NotImplementedError:
        return False, None
    except Exception as error:  # noqa: BLE001 - see above
        import traceback

        from .own_file import without_ours

        traceback.print_exception(type(error), error, without_ours(error.__traceback__))
        return False, None


def checked(made: Any, kinds: tuple[type, ...], name: str, value: Any) -> Any:
    """Return a method's result; None, with a warning, if it is of a type that is not allowed."""
    inner = made[0] if isinstance(made, tuple) and made else made
    if made is None or isinstance(inner, kinds):
        return made
    import warnings

    expected = " or ".join(kind.__name__ for kind in kinds)
    warnings.warn(
        f"{name} of a {type(value).__name__} must give {expected}, and gave "
        f"{type(inner).__name__}: it is not shown",
        stacklevel=2,
    )
    return None


def both_of(made: Any, no_metadata: Any) -> tuple[Any, Any]:
    """Return the data and metadata of a method that may return the data alone."""
    if isinstance(made, tuple) and len(made) == 2:
        return made
    return made, no_metadata


def text_printer_for(value: Any) -> Callable[[Any], Any]:
    formatter: Callable[[Any], Any] | None = formatter_of_shell("text/plain")
    if formatter is not None:
        return formatter
    if type(value) in (bool, float, int, str):  # spares most cells the printer
        return repr
    from .pretty import pretty

    return pretty


def printer_for(value: Any, kind: str) -> Callable[[Any], Any] | None:
    """Return the function that makes this MIME type of such values, in place of their method."""
    formatter = formatter_of_shell(kind)
    if formatter is not None:
        try:
            printer: Callable[[Any], Any] = formatter.lookup(value)
        except KeyError:
            pass
        else:
            return printer
    figure = sys.modules.get("matplotlib.figure")
    if kind == "image/png" and figure is not None and isinstance(value, figure.Figure):
        from .figures import inline_backend, png_of

        return None if inline_backend() else png_of
    return None


def formatter_of_shell(kind: str) -> Any:
    """Return the formatter of IPython's shell, if the cell has the shell: it may be configured."""
    shell = shell_made()
    return shell and shell.display_formatter.formatters[kind]


def publisher_in_place() -> Any:
    """Return the publisher that captures outputs, as `capture_output()` does; mostly None."""
    shell = shell_made()
    publisher = shell and shell.display_pub
    return None if type(publisher).__module__.startswith(PACKAGE) else publisher


# On the way.


def jsonable(value: Any) -> Any:
    """Return the value as JSON can express it, as a kernel puts it into its messages."""
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else repr(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        from binascii import b2a_base64

        return b2a_base64(value, newline=False).decode("ascii")
    if isinstance(value, dict):
        return {
            key if isinstance(key, (str, int, float, bool, type(None))) else str(key): jsonable(
                item
            )
            for key, item in value.items()
        }
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # an array, or a number of numpy's
        return jsonable(value.tolist())
    if hasattr(value, "__iter__"):
        return [jsonable(item) for item in value]
    for name, kind in (("__index__", int), ("__float__", float)):
        if hasattr(value, name):
            return jsonable(kind(value))
    return repr(value)


def readable(data: Bundle) -> str:
    """Return the text for a reader that shows only text."""
    for kind, item in data.items():
        if kind in ("image/png", "image/jpeg"):
            return f"[{kind}{size_of_image(item)}]"
    text = data.get("text/plain")
    if isinstance(text, str):
        return text
    return "".join(f"[{kind}]" for kind in list(data)[:1])


def size_of_image(image: bytes | str) -> str:
    """Return ` 640x480`, in pixels; nothing if the image does not hold its size."""
    from binascii import Error, a2b_base64

    try:
        data = a2b_base64(image) if isinstance(image, str) else bytes(image)
    except (Error, ValueError):
        return ""
    if data.startswith(b"\x89PNG") and data[12:16] == b"IHDR":
        return " {}x{}".format(*(int.from_bytes(data[at : at + 4], "big") for at in (16, 20)))
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            height, width = (int.from_bytes(data[p : p + 2], "big") for p in (at + 5, at + 7))
            return f" {width}x{height}"
        at += 2 + length
    return ""
