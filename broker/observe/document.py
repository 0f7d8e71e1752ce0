"""Descriptions of plain data: a JSON schema and the merging of several documents into one, from one source.

A document is what JSON can hold. Each part of it is described once: its type, its meaning, and how the values
of several processes become one: a count is summed, a name is that of the first, lists are joined, rows about
the same thing are merged; and what remains of it when its process is gone: what was counted since the start
does, what is true of a moment does not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Merge = Callable[[Sequence[Any]], Any]


def first(values: Sequence[Any]) -> Any:
    return values[0]


def union(values: Sequence[list[Any]]) -> list[Any]:
    """Every entry once, in the order of appearance."""
    return list(dict.fromkeys(entry for value in values for entry in value))


def elementwise(values: Sequence[list[Any]]) -> list[Any]:
    """Sums of lists of the same length."""
    return [sum(column) for column in zip(*values, strict=True)]


class Part(ABC):
    """Something in a document. `null`: it may be null, which counts for nothing where values are merged."""

    def __init__(self, text: str, *, null: bool = False) -> None:
        self.text = text
        self.null = null

    def schema(self) -> dict[str, Any]:
        described = {**self.shape(), "description": self.text}
        if self.null:
            described["type"] = [described["type"], "null"]
        return described

    def merge(self, values: Sequence[Any]) -> Any:
        there = [value for value in values if value is not None]
        return self.join(there) if there else None

    def remains(self, value: Any) -> Any:
        return None if value is None else self.rest(value)

    @abstractmethod
    def shape(self) -> dict[str, Any]: ...

    @abstractmethod
    def join(self, values: Sequence[Any]) -> Any: ...

    @abstractmethod
    def rest(self, value: Any) -> Any: ...


class Plain(Part):
    """A single value, or a list of plain ones. `passing`: a sum of what is there now."""

    def __init__(
        self, kind: str, how: Merge, text: str, *, null: bool = False, passing: bool = False, **more: Any
    ) -> None:
        super().__init__(text, null=null)
        self._kind = kind
        self._how = how
        self._passing = passing
        self._more = more

    def shape(self) -> dict[str, Any]:
        return {"type": self._kind, **self._more}

    def join(self, values: Sequence[Any]) -> Any:
        return self._how(values)

    def rest(self, value: Any) -> Any:
        return 0 if self._passing else value


class Map(Part):
    """Names that are not known in advance, each with the same kind of value."""

    def __init__(self, item: Part, text: str) -> None:
        super().__init__(text)
        self._item = item

    def shape(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self._item.schema()}

    def join(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        names = union([list(value) for value in values])
        return {name: self._item.merge([value[name] for value in values if name in value]) for name in names}

    def rest(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._item.remains(each) for name, each in value.items()}


class Object(Part):
    """Fixed keys, all of them there."""

    def __init__(self, text: str, fields: Mapping[str, Part], *, null: bool = False) -> None:
        super().__init__(text, null=null)
        self.fields = dict(fields)

    def shape(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: part.schema() for name, part in self.fields.items()},
            "required": list(self.fields),
            "additionalProperties": False,
        }

    def join(self, values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {name: part.merge([value[name] for value in values]) for name, part in self.fields.items()}

    def rest(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {name: part.remains(value[name]) for name, part in self.fields.items()}


class Rows(Part):
    """A list of objects. Those with the same `key` are about one thing and merged; without one all are kept.

    `latest`: of the rows only so many are kept, the largest by the field "time", and the latest first.
    `lasting`: they remain when their process is gone.
    """

    def __init__(
        self,
        text: str,
        item: Object,
        key: tuple[str, ...] = (),
        latest: int = 0,
        *,
        lasting: bool = False,
    ) -> None:
        super().__init__(text)
        self.item = item
        self._key = key
        self._latest = latest
        self._lasting = lasting

    def shape(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema()}

    def join(self, values: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        rows = [row for value in values for row in value]
        if self._latest:
            return sorted(rows, key=lambda row: -row["time"])[: self._latest]
        if not self._key:
            return rows
        groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(tuple(row[name] for name in self._key), []).append(row)
        return [self.item.merge(group) for group in groups.values()]

    def rest(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self._latest:
            return value  # about what is over anyway
        return [self.item.remains(row) for row in value] if self._lasting else []


# --- the usual kinds -------------------------------------------------------------------------------


def name(text: str, *, null: bool = False) -> Plain:
    return Plain("string", first, text, null=null)


def names(text: str) -> Plain:
    return Plain("array", union, text, items={"type": "string"})


def count(text: str, *, null: bool = False) -> Plain:
    """A number of things that are there now: several processes have the sum."""
    return Plain("integer", sum, text, null=null, passing=True, minimum=0)


def total(text: str, *, null: bool = False) -> Plain:
    """The same of what has happened since the start: it stays when the process is gone."""
    return Plain("integer", sum, text, null=null, minimum=0)


def amount(text: str) -> Plain:
    """A total with fractions."""
    return Plain("number", sum, text, minimum=0)


def setting(text: str, *, null: bool = False) -> Plain:
    """A number that is the same in every process."""
    return Plain("integer", first, text, null=null)


def counts(text: str) -> Map:
    return Map(total("How many."), text)
