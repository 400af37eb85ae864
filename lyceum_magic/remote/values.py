"""Values <-> bytes, exactly and without pickle; on both sides of a run.

A packed value is `lyv1`, the length of a JSON text in four bytes, that text `[node, sizes]`, and
blobs of those sizes. In a node JSON's null, booleans, numbers and strings stand for themselves, an
object for a dict whose keys are strings, and an array `[kind, ...]` for everything else. A kind
that holds bytes names its blob by number. Each blob is taken once, so that no text can ask for
more than came with it.

These types travel as they are: None, bool, int, float, complex, str, bytes, bytearray, list, tuple,
set, frozenset, dict, range, slice; the types of `datetime`, `zoneinfo`, `decimal`, `fractions`,
`uuid` and `pathlib`; numpy arrays and scalars (`arrays`); pandas objects, polars and pyarrow tables
(`tables`); dataclass instances, with their fields and other attributes (`kinds`). Any other object
with `__arrow_c_stream__` arrives as a pyarrow table, one with `__array__` as a numpy array.
Everything else is refused, subclasses of Python's own types too, unless a pickle is allowed. If one
is, an object that would arrive as another type is pickled too. An object that is in two places
arrives as two.

A dataclass instance gets its own class again if the receiver has that class, imported or in
`__main__`; else the sender's class, which travels along if a pickle is allowed; else a class that
is made with its name and fields. Without a pickle no name in the data is ever imported, and no
class is called: of a class that is here, only the code runs that Python itself runs to set a field,
and to hash and compare an instance that is in a set or the key of a dict.
"""

from __future__ import annotations

import sys
from json.decoder import JSONDecoder
from json.encoder import JSONEncoder

from .kinds import KINDS, KNOWN, pack_dataclass
from .refusals import MAX_BYTES, PackError, TooLarge, UnpackError, missing, said, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from typing import Any, TypeVar

    T = TypeVar("T")

_MAGIC = b"lyv1"
_MAX_DEPTH = 100
_LARGE = 1 << 63
_FLAT = {type(None), bool, int, float, str}
#: The packages of which `tables` packs objects.
TABLES = {"pandas", "polars", "pyarrow"}
#: The package of this module, whose name means nothing to a user.
OURS = __name__.rpartition(".")[0]
#: Not the functions of `json`, which a cell may have replaced.
_TO_JSON = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FROM_JSON = JSONDecoder().decode
_PYTHON = "%d.%d" % sys.version_info[:2]  # noqa: UP031 - an f-string is not shorter


def pack(value: object, name: str = "the value", *, allow_pickle: bool = False) -> bytes:
    """Return one value as bytes; see `Packer.pack`."""
    return Packer(allow_pickle=allow_pickle).pack(name, value)


def unpack(
    data: bytes,
    *,
    allow_pickle: bool = False,
    namespace: dict[str, Any] | None = None,
    came_along: list[str] | None = None,
) -> Any:
    """Return the value in packed bytes.

    Args:
        data: untrusted: bytes that `pack` did not make are refused, and run nothing.
        allow_pickle: whether a pickle may be loaded; that runs any code of its maker.
        namespace: in which functions of `__main__` arrive, see `pickles`.
        came_along: a list to which the names that they bring into it are added.

    Raises:
        UnpackError: the only error that is raised.
    """
    unpacker = Unpacker(data, allow_pickle, namespace)
    value = _guarded(unpacker.unpack)
    if came_along is not None:
        came_along += unpacker.came_along
    return value


class Packer:
    """A packer of values that travel together.

    Args:
        allow_pickle: whether a value that cannot travel otherwise travels as a pickle.
        max_bytes: maximum bytes of all of them.
        apart: names of values that arrive together: functions need not carry them.

    Attributes:
        needs: the modules that unpacking them imports.
        changed: name -> a sentence, for each value that arrives as another type.
    """

    def __init__(
        self,
        *,
        allow_pickle: bool = False,
        max_bytes: int = MAX_BYTES,
        apart: Collection[str] = (),
    ) -> None:
        self.needs: set[str] = set()
        self.changed: dict[str, str] = {}
        self._allow_pickle = allow_pickle
        self._apart = apart
        self._keeps_types = allow_pickle
        self._change = ""
        self._left = max_bytes
        self._reserved = 0
        self._open: list[object] = []
        self._blobs: list[bytes] = []
        self._classes: set[type] = set()  # of which a pickle is among the blobs

    def pack(self, name: str, value: object) -> bytes:
        """Return a value as bytes.

        Args:
            name: its name in a message.

        Raises:
            PackError: it cannot travel; the message names it and its type.
        """
        needs = set(self.needs)
        try:
            data = self._pack(value)
        except _Refused as exc:
            self.needs = set(needs)
            if not self._allow_pickle:
                raise PackError(f"{name} {exc}") from exc
            try:
                data = self._pickled(name, value)
            except TooLarge:
                raise
            except PackError:
                self.needs = needs
                data = self._packed_as_another(value)
                if not data:
                    raise
        except TooLarge:
            raise TooLarge(f"{name} takes more than the {_mib(self._left)} left for it") from None
        if self._change:
            self.changed[name] = f"{name} {self._change}"
        self._left -= len(data)
        return data

    def _packed_as_another(self, value: object) -> bytes:
        """Return a value that cannot be pickled as another type; empty if there is none."""
        self._keeps_types = False
        try:
            return self._pack(value)
        except _Refused:
            return b""
        finally:
            self._keeps_types = self._allow_pickle

    def _pack(self, value: object) -> bytes:
        self._blobs, self._open, self._reserved, self._change = [], [], 0, ""
        self._classes = set()
        try:
            node = self.node(value)
            sizes = list(map(len, self._blobs))
            text = _TO_JSON([node, sizes])
        except (_Refused, TooLarge):
            raise
        except Exception as exc:  # the value's own code was asked for its content
            raise _Refused(f"cannot be read ({said(exc)})") from exc
        finally:
            self._open = []
        # Lone surrogates stay what they are, which they do not as JSON's \u escapes.
        head = text.encode("utf-8", "surrogatepass")
        data = b"".join([_MAGIC, len(head).to_bytes(4, "big"), head, *self._blobs])
        if len(data) > self._left:
            raise TooLarge
        return data

    def _pickled(self, name: str, value: object) -> bytes:
        from .pickles import HoldsTheRun, dump

        self._change = ""
        try:
            content, modules = dump(value, apart=self._apart)
        except ModuleNotFoundError as exc:
            if exc.name != "cloudpickle":
                raise self._not_even_pickled(name, value, exc) from exc
            raise PackError(f"{name} needs a pickle, and {missing('cloudpickle')}") from None
        except HoldsTheRun as exc:
            raise PackError(f"{name} is {_a_type(value)} and cannot travel: {exc}") from exc
        except Exception as exc:
            raise self._not_even_pickled(name, value, exc) from exc
        self.needs |= {"cloudpickle", *modules}
        head = _TO_JSON([["pickle", _PYTHON, 0], [len(content)]]).encode()
        if len(content) + len(head) + 8 > self._left:
            raise TooLarge(f"{name} takes more than the {_mib(self._left)} left for it")
        return b"".join([_MAGIC, len(head).to_bytes(4, "big"), head, content])

    def _not_even_pickled(self, name: str, value: object, exc: Exception) -> PackError:
        return PackError(
            f"{name} is {_a_type(value)}, which no pickle can hold either ({said(exc)})"
        )

    # For `kinds`, `arrays` and `tables` too.

    def change(self, value: object, kind: str) -> None:
        """Note that a value arrives as another type, unless a pickle may keep its own.

        Args:
            kind: the type that arrives, with its article.
        """
        if self._keeps_types:
            raise self.refuse(value)
        does = "is" if self._is_whole(value) else "holds"
        self._change = (
            f"{does} {_a_type(value)}, which arrives as {kind}; --pickle keeps it as it is"
        )

    def node(self, value: object) -> Any:
        """Return the node that stands for a value in the JSON text."""
        self.reserve(2)  # what its text takes at the least, here and below
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is str:
            self.reserve(len(value) + 1)  # type: ignore[arg-type]
            return value
        if kind is int:
            return value if -_LARGE < value < _LARGE else ["int", hex(value)]  # type: ignore[operator, arg-type]
        if any(value is other for other in self._open):
            raise _Refused(f"holds {_a_type(value)} that holds itself, and only a pickle can")
        if len(self._open) == _MAX_DEPTH:
            raise _Refused(f"is nested more than {_MAX_DEPTH} deep, which only a pickle can be")
        self._open.append(value)
        node = self._compound(value)
        self._open.pop()
        return node

    def reserve(self, size: int) -> None:
        """Count bytes that are about to be made."""
        self.check_room(size)
        self._reserved += size

    def check_room(self, size: int) -> None:
        """Raise TooLarge for bytes that have no room, before they are made."""
        if self._reserved + size > self._left:
            raise TooLarge

    def blob(self, data: bytes) -> int:
        """Put bytes after the text; return the blob's number, for the node."""
        self.reserve(len(data))
        self._blobs.append(data)
        return len(self._blobs) - 1

    def refuse(self, value: object, why: str = "cannot travel as data") -> Exception:
        """Return the error to raise for a value that is not supported."""
        what = _a_type(value)
        hint = "--pickle would send it as a pickle"
        return _Refused(f"{'is' if self._is_whole(value) else 'holds'} {what}, which {why}; {hint}")

    def _is_whole(self, value: object) -> bool:
        return len(self._open) == 1 and value is self._open[0]

    def _compound(self, value: Any) -> Any:
        kind = type(value)
        if kind is not dict:
            self.reserve(8)
        if kind is list or kind is tuple or kind is set or kind is frozenset:
            return [kind.__name__, self._items(value)]
        if kind is dict:
            if set(map(type, value)) <= {str}:
                self.reserve(sum(map(len, value)))
                return {key: self.node(item) for key, item in value.items()}
            return ["dict", [[self.node(key), self.node(item)] for key, item in value.items()]]
        if kind is bytes or kind is bytearray:
            return [kind.__name__, self.blob(bytes(value))]
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind is range or kind is slice:
            return [kind.__name__, *map(self.node, (value.start, value.stop, value.step))]
        module, _, _ = kind.__module__.partition(".")
        if (pack_known := KNOWN.get(f"{module}.{kind.__name__}")) is not None:
            return pack_known(self, value)
        if module == "numpy":
            from . import arrays

            return arrays.pack_numpy(self, value)
        if any(base.__module__.partition(".")[0] in TABLES for base in kind.__mro__):
            from . import tables

            return tables.pack_table(self, value)
        if hasattr(kind, "__dataclass_fields__"):
            return pack_dataclass(self, value)
        if hasattr(kind, "__arrow_c_stream__"):
            from . import tables

            return tables.pack_arrow(self, value)
        if hasattr(kind, "__array__"):
            from . import arrays

            return arrays.pack_array_like(self, value)
        raise self.refuse(value)

    def _items(self, values: Any) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= _FLAT and str not in kinds:
            self.reserve(2 * len(values))
            if int not in kinds or all(-_LARGE < v < _LARGE for v in values if type(v) is int):
                return list(values)
        return [self.node(item) for item in values]

    def class_of(self, kind: type) -> list[Any]:
        """Return a class as a pickle, for a receiver that has none of its name; else nothing."""
        if not self._keeps_types or kind in self._classes:
            return []
        self._classes.add(kind)
        try:
            from .pickles import dump

            content, modules = dump(kind, apart=self._apart)
        except Exception:  # noqa: BLE001 - its fields travel all the same
            return []
        self.needs |= {"cloudpickle", *modules}
        return [_PYTHON, self.blob(content)]


class _Refused(Exception):
    """A refusal that a pickle may avoid; a sentence without its first word, the value's name."""


class Unpacker:
    """An unpacker of one value; see `unpack`."""

    def __init__(
        self, data: bytes, allow_pickle: bool, namespace: dict[str, Any] | None = None
    ) -> None:
        self.came_along: list[str] = []
        self._classes: dict[str, Any] = {}
        self._data = data
        self._blobs: dict[object, bytes] = {}
        self._allow_pickle = allow_pickle
        self._namespace = namespace

    def unpack(self) -> Any:
        data = memoryview(self._data)
        at = 8 + int.from_bytes(data[4:8], "big")
        if data[:4] != _MAGIC or at > len(data):
            raise UnpackError("these bytes are no packed value")
        node, sizes = _FROM_JSON(bytes(data[8:at]).decode("utf-8", "surrogatepass"))
        for number, size in enumerate(sizes):
            if type(size) is not int or not 0 <= size <= len(data) - at:
                raise UnpackError("the value's end is missing")
            self._blobs[number] = bytes(data[at : at + size])
            at += size
        if isinstance(node, list) and node[0] == "pickle":
            return self._unpickled(*node[1:])
        return self.value(node)

    # For `kinds`, `arrays` and `tables` too.

    def value(self, node: Any) -> Any:
        """Return the value that a node of the JSON text stands for."""
        if type(node) is dict:
            return {key: self.value(item) for key, item in node.items()}
        if type(node) is not list:
            return node
        return self._kind(node[0])(self, *node[1:])

    def _kind(self, name: object) -> Callable[..., Any]:
        if name in KINDS:
            return KINDS[name]
        from . import arrays, tables

        if name in arrays.KINDS:
            return arrays.KINDS[name]
        if name in tables.KINDS:
            return tables.KINDS[name]
        raise UnpackError(f"there is no kind {str(name)[:40]!r} of value")

    def take(self, number: int) -> bytes:
        """Return the blob of this number, once."""
        if number not in self._blobs:
            raise UnpackError("bytes of the value are missing")
        return self._blobs.pop(number)

    def values(self, nodes: list[Any]) -> list[Any]:
        return [self.value(node) if type(node) in (list, dict) else node for node in nodes]

    def typed(self, node: Any, kind: type[T]) -> T:
        """Return the value of a node, which must be of exactly this type."""
        value = self.value(node)
        if type(value) is not kind:
            raise UnpackError(f"a {kind.__name__} is missing")
        return value

    def _unpickled(self, python: str, blob: int) -> Any:
        if not self._allow_pickle:
            raise UnpackError(
                "it came as a pickle, which only --pickle (run.allow_pickle = True) lets in"
            )
        if python != _PYTHON:
            raise UnpackError(
                f"it was pickled by Python {str(python)[:9]}, and a pickle is not safe in another "
                f"Python than that: here is {_PYTHON}"
            )
        from .pickles import load

        try:
            value, came_along = load(self.take(blob), self._namespace)
        except ModuleNotFoundError as exc:
            if exc.name == "cloudpickle":
                raise UnpackError(missing("cloudpickle")) from exc
            raise
        self.came_along += came_along
        return value

    def class_named(self, name: str, python: str = "", blob: int = -1) -> Any:
        """Return the class that came as a pickle, with this instance or an earlier one, or None."""
        if blob >= 0:
            content = self.take(blob)
            if self._allow_pickle and python == _PYTHON:
                from .pickles import load

                try:
                    self._classes[name], came_along = load(content, self._namespace)
                    self.came_along += came_along
                except (ImportError, AttributeError):  # its module is not here
                    pass
        return self._classes.get(name)


def _guarded(work: Callable[[], T]) -> T:
    try:
        return work()
    except UnpackError:
        raise
    except ModuleNotFoundError as exc:
        raise UnpackError(unknown(str(exc.name))) from exc
    except Exception as exc:
        raise UnpackError(f"the value cannot be made ({said(exc)})") from exc
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":  # Rust's, of polars
            raise
        raise UnpackError(f"the value cannot be made ({said(exc)})") from exc


# Words.


def _a_type(value: object) -> str:
    kind = type(value)
    # A class of ours stands for the one above it.
    public = next(base for base in kind.__mro__ if not base.__module__.startswith(OURS))
    name = kind.__name__ if public is object else public.__qualname__
    if public.__module__ not in ("builtins", "__main__"):
        name = f"{public.__module__}.{name}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.3g} MiB" if size >= 2**20 else f"{size:,} bytes"


# The two ends of a run's program.


def encode_inputs(packed: dict[str, bytes]) -> str:
    """Return packed values as text for `Job.inputs`."""
    from binascii import b2a_base64

    from .deflating import deflate

    # In one expression, so that no copy, which may be megabytes, outlives the next.
    return b2a_base64(
        deflate(Packer(max_bytes=4 * MAX_BYTES).pack("inputs", packed)), newline=False
    ).decode("ascii")


def restore_inputs(
    text: str, *, allow_pickle: bool = False, namespace: dict[str, Any] | None = None
) -> dict[str, object]:
    """Return the cell's inputs by name.

    Args:
        namespace: the cell's.

    Raises:
        UnpackError: one of them cannot be made here; the message names it.
    """
    import zlib
    from binascii import a2b_base64

    values = {}
    for name, data in unpack(zlib.decompress(a2b_base64(text))).items():
        try:
            values[name] = unpack(data, allow_pickle=allow_pickle, namespace=namespace)
        except UnpackError as exc:
            raise UnpackError(f"--in {name}: {exc}") from exc.__cause__
    return values


def send_outputs(names: Iterable[str], namespace: dict[str, object], *, allow_pickle: bool) -> None:
    """Send the values of the names that exist; of one that cannot travel, the reason."""
    from .frames import send

    packer = Packer(allow_pickle=allow_pickle)
    for name in names:
        if name not in namespace:
            continue
        try:
            data = packer.pack(name, namespace[name])
        except TooLarge:
            problem = (
                f"{name} takes more than is left of the {_mib(MAX_BYTES)} that --out brings back; "
                "put it in the account's storage"
            )
        except PackError as exc:
            problem = str(exc)
        else:
            about = f"[value {name}: {type(namespace[name]).__qualname__}, {len(data):,} bytes]"
            change = packer.changed.get(name)
            head: dict[str, object] = {"change": change} if change else {}
            send("value", head, data, exact={"name": name}, readable=about)
            continue
        about = f"[value {name}: {problem}]"
        send("value", {"problem": problem}, exact={"name": name}, readable=about)
