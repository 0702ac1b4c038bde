"""Observables written as calls: `phonon(q=[1/2, 0, 1/2], mode=3)`, on the command line and in files.

Only names, numbers, fractions, texts and lists of these are understood; nothing is evaluated.
"""

import ast
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from mdsens.checks import nearest
from mdsens.errors import InputError
from mdsens.observables.observable import Observable


@dataclasses.dataclass(frozen=True)
class Renamed:
    """An observable of one number or array under the name that the user gave it.

    Attributes:
        observable: with a name of its own. name: what the user calls it.
    """

    observable: Observable
    name: str

    def __call__(self, states: Mapping[str, Any]) -> Observable:
        bound = self.observable.bound(states)
        return dataclasses.replace(bound, names=(self.name,), bind=None)


def is_call(text: str) -> bool:
    """Whether a name is written as a call."""
    return "(" in text


def observable_of_call(text: str, known: Mapping[str, Callable[..., Observable]], state: str) -> Observable:
    """The observable that a call names, under that name; arguments and errors as of `called`."""
    return renamed(called(text, known, state), text)


def called(text: str, known: Mapping[str, Callable[..., Any]], state: str) -> Any:
    """What a call makes.

    Args:
        known: functions that make observables, by name.
        state: the state it is measured on, unless the call says another.
    Raises:
        InputError: an unknown function or argument, or something that is no call.
    """
    tree = _parsed(text)
    name = tree.func.id if isinstance(tree.func, ast.Name) else ""
    if name not in known:
        alike, listed = nearest(name, known, 0.3), ", ".join(known)
        raise InputError(f"no observable '{name}' with arguments, in '{text}'.{alike} There are: {listed}.")
    made = known[name]
    arguments = inspect.signature(made).parameters
    first = [_value(node, text) for node in tree.args]
    named = {str(k.arg): _value(k.value, text) for k in tree.keywords}
    for argument in named:
        if argument not in arguments:
            alike, listed = nearest(argument, arguments, 0.3), ", ".join(arguments)
            raise InputError(f"{text}: {name} has no argument '{argument}'.{alike} It takes {listed}.")
    if len(first) > len(arguments):
        raise InputError(f"{text}: {name} takes {', '.join(arguments)}, and {len(first)} are given.")
    # an observable of its own state, a slab or a defect, stays with it
    if "state" in arguments and arguments["state"].default == "structure":
        named = {"state": state, **named}
    try:
        return made(*first, **named)
    except TypeError as error:  # an argument missing, or given twice
        raise InputError(f"{text}: {error}. It takes {', '.join(arguments)}.") from error


def renamed(observable: Observable, name: str) -> Observable:
    """The observable under another name, if it is one number or array."""
    if len(observable.names) > 1:
        return observable
    return dataclasses.replace(observable, names=(name,), bind=Renamed(observable, name))


def _parsed(text: str) -> ast.Call:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        tree = None
    if not isinstance(tree, ast.Call):
        raise InputError(
            f"'{text}' is no observable: write a name, or a call such as phonon(q=[1/2, 0, 1/2])."
        )
    return tree


def _value(node: ast.AST, text: str) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, text) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, text)
        case ast.BinOp(op=ast.Div(), left=left, right=right):
            return _quotient(_value(left, text), _value(right, text), text)
        case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
            names = [key.value for key in keys if isinstance(key, ast.Constant)]
            return {k: _value(v, text) for k, v in zip(names, values, strict=True)}
        case ast.Name(id=name):
            return name
    raise InputError(f"'{ast.unparse(node)}' in '{text}': write numbers, fractions, texts, or lists of them.")


def _quotient(above: Any, below: Any, text: str) -> Fraction:
    try:
        return Fraction(above) / Fraction(below)
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"'{above}/{below}' in '{text}' is no fraction.") from error
