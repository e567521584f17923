"""A model's template for chat is a program from outside: it words messages, and can do nothing else."""

from __future__ import annotations

import time

import pytest

from tidemill.core.errors import RefusedModel, WrongValue
from tidemill.engine.generate.template import Template

IN_TIME_S = 20.0
"""Not for ever, on a machine with much else to do."""
MESSAGES = ({"role": "user", "content": "hi"},)


def worded(source: str, **more: object) -> str:
    return Template(source, "<s>", "</s>", 0.3).word(MESSAGES, ())


def test_messages_are_worded() -> None:
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert worded(source) == "<s>user: hi</s>"


def test_tools_are_told_where_the_template_knows_them() -> None:
    template = Template("{% if tools %}{{ tools | tojson }}{% endif %}", "", "", 0.3)
    assert template.tools
    assert template.word(MESSAGES, ({"name": "größe<"},)) == '[{"name": "größe<"}]'
    assert template.word(MESSAGES, ()) == ""
    assert not Template("{{ messages }}", "", "", 0.3).tools


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 'a' * 10**10 }}",
        "{{ 'a' * 100000000 }}",
        "{{ 9**9**9**9 }}",
        "{{ raise_exception('no system message here') }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ range(100000000) }}",
        "{{ '{1}'.format(0) }}",
        "{{ 'x'.encode('foo') }}",
        "{{ messages | map('nothing') | list }}",
        "{{ 'a'.rjust(999999999999) }}",
        "{{ 'a'.ljust(width=1) }}",
        "{{ 'a'.center(999999999999) }}",
        "{{ '1'.zfill(999999999) }}",
        "{{ 'a' | center(999999999999) }}",
        "{{ 'a\\nb' | indent(999999999) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ '{:{}d}'.format(1, 1000000000) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    ],
)
def test_hostile_or_unhappy_ones_end_in_an_error_in_time(source: str) -> None:
    started = time.perf_counter()
    with pytest.raises(WrongValue, match="template for chat") as refused:
        worded(source)
    assert refused.value.param == "messages"
    assert time.perf_counter() - started < IN_TIME_S


def test_small_formats_and_paddings_are_made() -> None:
    assert worded("{{ '%03d' % 7 }} {{ '{:>4}'.format('a') }} {{ 'a'.rjust(3) }} {{ 7 % 4 }}") == "007    a   a 3"
    assert worded("{{ '%s and %s' | format(1, 2) }}{{ 'a' | center(3) }}") == "1 and 2 a "


def test_constants_are_not_worked_out_while_the_model_loads() -> None:
    started = time.perf_counter()
    Template("{{ '%1000000000d' % 1 }}{{ 'a'.rjust(999999999) }}{{ 9**9**9 }}", "", "", 0.3)
    assert time.perf_counter() - started < IN_TIME_S


def test_the_inside_of_python_is_not_there() -> None:
    assert worded("{{ lipsum.__globals__ }}") == ""


def test_what_is_no_template_is_refused_with_the_model() -> None:
    with pytest.raises(RefusedModel, match="template for chat cannot be read"):
        worded("{% for %}")
