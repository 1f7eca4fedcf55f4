"""One method, two faces: how an operation written once is shown on blocking and asyncio classes.

An operation is a method that returns a flow (``flows.py``). `Operation` shows it on the blocking
classes as a method that returns the flow's value, and on the asyncio classes as one that returns an
awaitable of it, with the same parameters and the same docstring, for people, editors and mypy.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .flows import Flow, StreamFlow

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Marks the classes on which an operation returns its value."""


class Awaiting:
    """Marks the classes on which an operation returns an awaitable of its value."""


class Operation(Generic[P, T]):
    """Turns a method that returns a flow into the methods that users call."""

    def __init__(self, method: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        def blocking(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            value: T = self._session.driver.run(method(self, *args, **kwargs))
            return value

        async def awaiting(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
            value: T = await self._session.driver.run(method(self, *args, **kwargs))
            return value

        self.__doc__ = method.__doc__
        self._blocking = _dressed(blocking, method)
        self._awaiting = _dressed(awaiting, method)

    @overload
    def __get__(self, instance: Blocking, owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, instance: Awaiting, owner: Any = None
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., Any]:
        face = self._awaiting if issubclass(owner, Awaiting) else self._blocking
        return face if instance is None else MethodType(face, instance)


class Streamed(Generic[P, T]):
    """Turns a method that returns a stream flow into methods that return iterators."""

    def __init__(self, method: Callable[Concatenate[Any, P], StreamFlow[T]]) -> None:
        def blocking(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            values: Iterator[T] = self._session.driver.iterate(method(self, *args, **kwargs))
            return values

        def awaiting(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
            values: AsyncIterator[T] = self._session.driver.iterate(method(self, *args, **kwargs))
            return values

        self.__doc__ = method.__doc__
        self._blocking = _dressed(blocking, method, "Iterator")
        self._awaiting = _dressed(awaiting, method, "AsyncIterator")

    @overload
    def __get__(self, instance: Blocking, owner: Any = None) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Awaiting, owner: Any = None) -> Callable[P, AsyncIterator[T]]: ...
    @overload
    def __get__(self, instance: None, owner: Any = None) -> Callable[..., Any]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Callable[..., Any]:
        face = self._awaiting if issubclass(owner, Awaiting) else self._blocking
        return face if instance is None else MethodType(face, instance)


def _dressed(
    face: Callable[..., Any], method: Callable[..., Any], many: str = ""
) -> Callable[..., Any]:
    """``face`` with the name, docstring and signature of ``method``; it returns no flow.

    ``many`` is what it returns of a stream flow's values.
    """
    signature = inspect.signature(method)
    shown = str(signature.return_annotation)
    returns = re.sub(r"^Flow\[(.*)\]$", r"\1", shown)
    returns = re.sub(r"^StreamFlow\[(.*)\]$", rf"{many}[\1]", returns)
    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(face, name, getattr(method, name))
    face.__annotations__ = {**method.__annotations__, "return": returns}
    face.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=returns
    )
    return face
