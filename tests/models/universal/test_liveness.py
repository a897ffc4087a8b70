"""Names of a `forward`: every verdict holds in every execution of random programs."""

import ast
import builtins
import random
from pathlib import Path

import pytest
from torch import nn

from domainformer.errors import AdapterError
from domainformer.models.universal import Untouchable, analyse
from domainformer.models.universal.forward import ForwardSource

NAMES = "abcd"


def _program(rng, depth=0, *, in_loop=False):
    """Random statements over four names; `use(line, name)` is the only way to read one."""
    lines = []
    for _ in range(rng.randint(1, 3)):
        kinds = ["write", "write", "read", "copy"]
        kinds += ["if", "for", "try", "while", "with", "delete"] if depth < 3 else []
        kinds += ["break", "continue"] if in_loop else []
        kinds += ["return"] if depth else []
        kind = rng.choice(kinds)
        a, b = rng.choice(NAMES), rng.choice(NAMES)
        body = (
            [f"  {line}" for line in _program(rng, depth + 1, in_loop=in_loop)]
            if kind in ("if", "try", "with")
            else []
        )
        if kind == "write":
            lines.append(f"{a} = new()")
        elif kind == "read":
            lines.append(f"use({a})")
        elif kind == "copy":
            lines.append(f"{a} = make({b})")
        elif kind == "delete":
            lines.append(f"del {a}")
        elif kind == "if":
            lines += ["if decide():", *body]
            if rng.random() < 0.5:
                lines += ["else:", *(f"  {x}" for x in _program(rng, depth + 1, in_loop=in_loop))]
        elif kind in ("for", "while"):
            head = "for _ in some():" if kind == "for" else "while decide():"
            inner = _program(rng, depth + 1, in_loop=True)
            lines += [head, *(f"  {x}" for x in inner)]
            if rng.random() < 0.3:
                lines += ["else:", f"  {b} = new()"]
        elif kind == "with":
            lines += ["with swallow():", *body]
        elif kind == "try":
            handler = _program(rng, depth + 1, in_loop=in_loop)
            lines += ["try:", "  fail()", *body, "  fail()"]
            ending = rng.choice(["except", "finally", "both"])
            if ending != "finally":
                lines += ["except Failure:", *(f"  {x}" for x in handler)]
            if ending != "except":
                lines += ["finally:", f"  {a} = make({b})", f"  use({a})"]
        else:
            lines.append(kind)
            break
    return lines


class Failure(Exception):
    pass


class _Trace(ast.NodeTransformer):
    """Tell the machine at which line a value is made or read."""

    def visit_Call(self, node):
        if isinstance(node.func, ast.Name) and node.func.id in ("use", "make", "new"):
            node.args.insert(0, ast.Constant(node.lineno))
        return node


def _executions(text, seed, runs=60):
    """Lines whose value was read, and lines at which each name was read without an error."""
    tree = ast.fix_missing_locations(_Trace().visit(ast.parse(text)))
    code = compile(tree, "<program>", "exec")
    rng = random.Random(seed)
    read_from, read_at = set(), set()

    def use(line, value):
        read_from.add(value)
        read_at.add(line)

    def make(line, value):
        use(line, value)
        return line

    def fail():
        if rng.random() < 0.3:
            raise Failure

    class Swallow:
        def __enter__(self):
            pass

        def __exit__(self, kind, *_):
            return kind is Failure and rng.random() < 0.7

    space = {
        "use": use,
        "make": make,
        "new": lambda line: line,
        "decide": lambda: rng.random() < 0.5,
        "some": lambda: range(rng.choice([0, 1, 3])),
        "fail": fail,
        "swallow": Swallow,
        "Failure": Failure,
    }
    exec(code, space)
    for _ in range(runs):
        try:
            space["forward"](*[f"argument {name}" for name in "ab"])
        except (Failure, NameError):
            continue
    return read_from, read_at


@pytest.mark.parametrize("seed", range(150))
def test_verdicts_hold_in_every_execution(seed):
    body = _program(random.Random(seed))
    text = "def forward(a, b):\n" + "\n".join(f"  {line}" for line in body)
    tree = ast.parse(text).body[0]
    known = frozenset({"use", "make", "new", "decide", "some", "fail", "swallow", "Failure"})
    found = analyse(ForwardSource("program.py", tree, None, known, None, text))
    assert found.unknown is None
    read_from, read_at = _executions(text, seed)
    for finding in found.undefined:
        line = text.splitlines()[finding.line - 1]
        if "del" not in line:
            assert finding.line not in read_at, f"{finding}\n{text}"
    for finding in (*found.dead, *found.overwritten):
        if finding.argument:
            assert f"argument {finding.name}" not in read_from, f"{finding}\n{text}"
        else:
            assert finding.line not in read_from, f"{finding}\n{text}"


def test_a_wrong_verdict_would_be_seen():
    """The sabotage twin: a verdict that no execution bears out fails the test above."""
    text = "def forward(a, b):\n  c = new()\n  use(c)\n  use(a)"
    read_from, read_at = _executions(text, 0)
    assert 2 in read_from
    assert {3, 4} == read_at
    assert "argument a" in read_from
    assert "argument b" not in read_from


def test_findings_have_file_line_and_reason():
    class Wrong(nn.Module):
        def forward(self, x):
            return x + early  # noqa: F821

    (finding,) = analyse(Wrong()).undefined
    assert finding.file == __file__
    assert "early" in Path(__file__).read_text().splitlines()[finding.line - 1]
    assert str(finding).endswith("early: neither the function nor its file binds it")
    assert analyse(Wrong()).to_json()["undefined"][0]["name"] == "early"
    assert "undefined: 1" in analyse(Wrong()).render()


@pytest.mark.parametrize(
    "touch",
    [
        lambda value: value + 1,
        lambda value: 1 - value,
        lambda value: value.shape,
        lambda value: bool(value),
        lambda value: list(value),
        lambda value: value == 3,
        lambda value: value[0],
        lambda value: f"{value}",
        lambda value: value(1),
        lambda value: nn.Linear(2, 2)(value),
        lambda value: nn.Embedding(2, 2)(value),
        lambda value: nn.functional.relu(value),
    ],
)
def test_an_untouchable_raises_on_any_use(touch):
    with pytest.raises(AdapterError, match="mhsa_0_output was used"):
        touch(Untouchable("mhsa_0_output", "model.py:3"))


SNIPPETS = {
    "match": (
        "match x:\n case [a, *b] if a: return b\n case {'k': c, **d}: return c, d\nreturn x",
        "",
    ),
    "match falls through": ("match x:\n case 1: y = 2\nreturn y", "uncertain y"),
    "nested comprehension": ("return [[b for b in a] for a in x if a]", ""),
    "comprehension's own names end": ("z = [a for a in x]\nreturn a, z", "undefined a"),
    "generator reads later": ("g = (a + y for a in x)\ny = 1\nreturn g", ""),
    "lambda reads later": ("f = lambda: y\ny = 1\nreturn f(x)", ""),
    "lambda reads nothing": ("f = lambda: y\nreturn f(x)", "undefined y"),
    "walrus in while": ("while (y := x): x = y - 1\nreturn y", ""),
    "except name ends": ("try: x()\nexcept ValueError as e: pass\nreturn e", "undefined e"),
    "while true binds": ("while True:\n y = x\n if y: break\nreturn y", ""),
    "del then read": ("del x\nreturn x", "undefined x"),
    "global is no local": ("global g\ng = x\nreturn g", ""),
    "annotation binds nothing": ("y: int\nreturn x, y", "undefined y"),
    "unpacked and unused": ("a, b = x\nreturn a", ""),
    "underscore is on purpose": ("_rest = x\nreturn 1", ""),
    "in place is used": ("x += 1", ""),
    "subscript is used": ("y = x\ny[0] = 1\nreturn x", ""),
    "class body": ("class K:\n y = x\nreturn K", ""),
    "default is read now": ("def f(a=y): return a\ny = x\nreturn f, y", "undefined y"),
    "decorated": ("@x\ndef f(): return z\nz = 1\nreturn f", ""),
    "nonlocal": ("n = 0\ndef f():\n nonlocal n\n n = n + 1\nf()\nreturn n, x", ""),
    "star call": ("y = 1\nreturn x(*[y], **{'k': y})", ""),
    "f-string": ("y = 1\nreturn f'{x}{y:{y}}'", ""),
    "chained comparison": ("return x < (y := 1) < y", ""),
    "short circuit": ("x and (y := x)\nreturn y", "uncertain y"),
    "after return": ("return x\ny = z", ""),
    "exec": ("exec('y = 1')\nreturn x, y", "unknown"),
    "locals": ("y = 1\nreturn locals(), x", "unknown"),
    "break in finally": ("while True:\n try: break\n finally: y = x\nreturn y", "uncertain y"),
}


@pytest.mark.parametrize(("body", "expected"), SNIPPETS.values(), ids=SNIPPETS.keys())
def test_every_kind_of_statement(body, expected):
    text = "def forward(x):\n" + "\n".join(f"  {line}" for line in body.splitlines())
    known = frozenset({*dir(builtins)})
    found = analyse(ForwardSource("f.py", ast.parse(text).body[0], None, known, None, text))
    if expected == "unknown":
        assert found.unknown
        return
    told = [
        f"{kind} {finding.name}"
        for kind in ("undefined", "dead", "overwritten", "uncertain")
        for finding in getattr(found, kind)
    ]
    assert told == [expected] * bool(expected), found.render()


def test_private_names_properties_and_guards_are_parts():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.__hidden = nn.Linear(2, 2)

        @property
        def explodes(self):
            raise RuntimeError("a property was run")

        def forward(self, x):
            if hasattr(self, "maybe"):
                return self.maybe(x)
            self.later = x
            return self.__hidden(self.later), self.explodes, self.training, self.absent

    assert [finding.name for finding in analyse(Careful()).undefined] == ["self.absent"]
    assert analyse(Careful).undefined == ()
