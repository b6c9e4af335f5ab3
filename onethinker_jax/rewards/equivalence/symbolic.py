"""Whether two LaTeX expressions have one value, decided by SymPy. Only the worker process imports this.

The parser is a grammar: unlike SymPy's own, it evaluates nothing that it reads. Values are compared relatively and
to fifty digits, so that 1/2004! and 1/2006! differ; expressions with variables at a few points, where two that are
not identical agree with a chance that is none.
"""

from __future__ import annotations

import functools
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

DIGITS, ALIKE = 60, sympy.Rational(1, 10**50)
_POINT_DIGITS, _POINT_ALIKE = 40, sympy.Rational(1, 10**25)

_POINTS = (
    (sympy.Rational(173, 211), sympy.Rational(389, 293), sympy.Rational(641, 353), sympy.Rational(257, 379)),
    (sympy.Rational(907, 311), sympy.Rational(263, 419), sympy.Rational(331, 607), sympy.Rational(821, 227)),
    (
        sympy.Rational(-239, 197),
        sympy.Rational(-523, 401),
        sympy.Rational(-313, 577),
        sympy.Rational(-173, 463),
    ),
    (
        sympy.Rational(457, 509),
        sympy.Rational(-619, 283),
        sympy.Rational(-401, 347),
        sympy.Rational(281, 521),
    ),
)
_CONFIG = ConversionConfig(lowercase_symbols=False)


def same_value(truth: str, answer: str, tolerance: str) -> bool:
    """Whether `answer` is worth what `truth` is; within `tolerance`, a fraction as text, where both are numbers.

    Raises what the parser and SymPy raise over what they cannot read.
    """
    wanted, given = _read(truth), _read(answer)
    if isinstance(wanted, Relational) or isinstance(given, Relational):
        return isinstance(wanted, Relational) and isinstance(given, Relational) and _relations(wanted, given)
    return _alike(wanted, given, sympy.Rational(tolerance))


@functools.lru_cache(maxsize=1024)
def _read(text: str) -> Any:
    """An expression with exact numbers, in which i is the imaginary unit."""
    read = latex2sympy(text, is_real=False, convert_degrees=False, conversion_config=_CONFIG)
    if not isinstance(read, (sympy.Basic, sympy.MatrixBase)):
        raise TypeError(f"not one expression: {type(read).__name__}")
    floats = {number: sympy.Rational(str(number)) for number in read.atoms(sympy.Float)}
    units = {symbol: sympy.I for symbol in read.free_symbols if getattr(symbol, "name", "") == "i"}
    return read.xreplace({**floats, **units})


def _alike(a: Any, b: Any, tolerance: Any = sympy.S.Zero) -> bool:
    if isinstance(a, sympy.MatrixBase) or isinstance(b, sympy.MatrixBase):
        if not (isinstance(a, sympy.MatrixBase) and isinstance(b, sympy.MatrixBase)) or a.shape != b.shape:
            return False
        return all(_alike(one, other) for one, other in zip(a.flat(), b.flat(), strict=True))
    if a == b:
        return True
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return False
    if a.is_infinite or b.is_infinite:
        return a.doit() == b.doit()
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if symbols or a.has(AppliedUndef) or b.has(AppliedUndef):
        return _alike_at_points(a, b, symbols)
    if a.is_Rational and b.is_Rational:
        return bool(abs(a - b) <= tolerance)
    one, other = a.evalf(DIGITS), b.evalf(DIGITS)
    if not (_is_number(one) and _is_number(other)):
        return False
    apart = abs(one - other)
    if apart <= ALIKE * max(abs(one), abs(other)):
        return True
    if tolerance and apart <= tolerance:
        return True
    return bool(min(abs(one), abs(other)) < ALIKE and sympy.simplify(a - b) == 0)


def _alike_at_points(a: Any, b: Any, symbols: list[Any]) -> bool:
    if a.has(AppliedUndef) or b.has(AppliedUndef) or len(symbols) > 8:
        return bool(sympy.simplify(a - b) == 0)
    compared = 0
    for shift, point in enumerate(_POINTS):
        values = {
            symbol: point[number % len(point)] + (number // len(point)) * sympy.Rational(shift + 3, 7)
            for number, symbol in enumerate(symbols)
        }
        one, other = (side.subs(values).evalf(_POINT_DIGITS) for side in (a, b))
        if not (_is_number(one) and _is_number(other)):
            continue
        compared += 1
        if abs(one - other) > _POINT_ALIKE * max(abs(one), abs(other)):
            near_zero = max(abs(one), abs(other)) < _POINT_ALIKE
            if not near_zero or sympy.simplify(a - b) != 0:
                return False
    return compared >= 2


def _is_number(value: Any) -> bool:
    if not value.is_number or not value.is_finite or value.atoms(sympy.Symbol):
        return False
    return all(isinstance(part, (sympy.Float, sympy.Rational)) for part in value.as_real_imag())


def _relations(a: Any, b: Any) -> bool:
    """Whether two equations or inequalities say the same: one's difference of sides is a multiple of the other's."""
    sense = {sympy.StrictLessThan: -1, sympy.LessThan: -1, sympy.StrictGreaterThan: 1, sympy.GreaterThan: 1}
    strict = (sympy.StrictLessThan, sympy.StrictGreaterThan)
    if isinstance(a, sympy.Eq) != isinstance(b, sympy.Eq) or isinstance(a, sympy.Ne) != isinstance(
        b, sympy.Ne
    ):
        return False
    if isinstance(a, strict) != isinstance(b, strict):
        return False
    one, other = a.lhs - a.rhs, b.lhs - b.rhs
    if isinstance(a, (sympy.Eq, sympy.Ne)):
        turned = 0
    else:
        turned = sense[type(a)] * sense[type(b)]
    if one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    ratio = sympy.cancel(sympy.together(one / other))
    if ratio.free_symbols:
        ratio = sympy.simplify(ratio)
    return bool(
        not ratio.free_symbols and ratio.is_finite and ratio != 0 and (turned == 0 or ratio * turned > 0)
    )
