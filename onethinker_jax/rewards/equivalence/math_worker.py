"""The process that does mathematics: `equivalence.MathGrader` starts it, asks it and ends it.

math-verify hands what a policy wrote to SymPy, which can run for ever or fill the memory (`9^{9^{9}}`).
Its own time limit is an alarm signal: it works on the main thread only, and cannot interrupt one long
big-integer operation at all. Here the kernel ends the process when a question has used its processor time,
even inside such an operation and even if the parent is gone. Processor time, not time on the clock: so a
verdict does not depend on how busy the machine is. Memory is limited too.
"""

from __future__ import annotations

import logging
import resource
import signal
from tokenize import TokenError
from typing import Any

from onethinker_jax.worker_process import serve_lines

MEMORY_BYTES = 4 * 2**30

RAISED_BY_SYMPY = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,  # NotImplementedError and RecursionError among them
    SyntaxError,
    TokenError,  # an open bracket
    TypeError,
    ValueError,
)


def equal(truth: str, answer: str) -> bool | None:
    """math-verify's verdict; None when it raised."""
    from math_verify import parse, verify

    try:
        no_limit: Any = None
        parsed = [parse(text, parsing_timeout=no_limit) for text in (truth, answer)]
        return bool(verify(parsed[0], parsed[1], timeout_seconds=no_limit))
    except RAISED_BY_SYMPY:
        return None


def vanishes(expression: str) -> bool:
    """Whether SymPy simplifies an expression in its own notation (`2x` is a product, `^` a power) to 0.

    SymPy's parser evaluates what it reads as Python: the caller lets through digits, operators, brackets
    and at most two letters (`equivalence.evaluable`), which cannot form a call.
    """
    import sympy
    from sympy.parsing import sympy_parser

    rules = (
        *sympy_parser.standard_transformations,
        sympy_parser.implicit_multiplication_application,
    )
    try:
        parsed = sympy_parser.parse_expr(expression.replace("^", "**"), transformations=rules)
        return bool(sympy.simplify(parsed) == 0)
    except RAISED_BY_SYMPY:
        return False


def same_value(truth: str, answer: str, tolerance: str) -> bool:
    """Whether two LaTeX expressions have one value, exactly or within a tolerance; False if one cannot be read."""
    from onethinker_jax.rewards.equivalence import symbolic

    try:
        return bool(symbolic.same_value(truth, answer, tolerance))
    except Exception as error:  # ANTLR and SymPy raise plain Exception over what they cannot read
        if type(error) is Exception or isinstance(error, RAISED_BY_SYMPY):
            return False
        raise


def answer(question: dict[str, Any]) -> bool | None:
    """`{"truth", "answer", "seconds"}` or `{"expression", "seconds"}` -> the verdict, or no return at all.

    With a "tolerance" (a fraction as text) beside truth and answer they are compared by `same_value`.
    """
    signal.setitimer(signal.ITIMER_PROF, question["seconds"])
    try:
        if "expression" in question:
            return vanishes(question["expression"])
        if "tolerance" in question:
            return same_value(question["truth"], question["answer"], question["tolerance"])
        return equal(question["truth"], question["answer"])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def main() -> None:
    """Limits memory, silences the libraries, loads math-verify, and serves."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    equal("$\\frac{1}{2}$", "$0.5$")
    vanishes("1/2-0.5")
    same_value("x+\\frac{1}{2}", "0.5+x", "0")
    serve_lines(lambda question: {"verdict": answer(question)})


if __name__ == "__main__":
    main()
