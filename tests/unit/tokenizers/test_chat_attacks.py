"""Chat templates of strangers: whatever they try ends in a clear error, in bounded time and memory."""

import os
import sys
import time

import pytest

from groundup.base.errors import CheckpointError, GroundupError, UsageError
from groundup.base.sandbox import Limits as SandboxLimits
from groundup.base.worker import Worker
from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.chat import rendering
from groundup.tokenizers.chat.render import render_chat
from groundup.tokenizers.chat.template import Limits, Signs, render
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

LIMITS = Limits(output=10**6, seconds=1)
TALK = [{"role": "user", "content": "Hello there"}]

REACHING = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}{{ ''['__class__'].__mro__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ()|attr('_'*2 ~ 'class' ~ '_'*2)|attr('__base__') }}",
    "{{ [''] | map(attribute='__class__') | map(attribute='__mro__') | list }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "{{ '{x.__class__.__mro__}'.format_map({'x': 1}) }}",
    "{{ '%s' | format(''.__class__.__base__.__subclasses__()) }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "{{ raise_exception.__globals__.__builtins__.open('/etc/passwd').read() }}",
    "{{ strftime_now.__func__.__globals__['json'] }}",
    "{{ joiner.__init__.__globals__ }}",
    "{% set ns = namespace() %}{{ ns.__class__.__init__.__globals__ }}",
    "{{ messages.__init__.__class__.__mro__ }}",
    "{{ messages[0].__class__.__base__.__subclasses__() }}",
    "{{ (messages | map('attr', '__class__') | first).__mro__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages[0].pop('role') }}",
    "{{ messages.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{% from 'os' import system %}{{ system('id') }}",
    "{{ open('/etc/passwd') }}",
    "{{ __import__('os').system('id') }}",
    "{{ config.items() }}",
    "{% do messages.append(1) %}",
    "{{ (1).__class__.__bases__[0].__subclasses__() }}",
    "{% macro m() %}{{ caller.__globals__ }}{{ m.__class__.__init__.__globals__ }}{% endmacro %}{{ m() }}",
]

BOMBS = [
    "{% for a in range(10**12) %}{% endfor %}",
    "{% for a in range(1000000000000) %}{% endfor %}",
    "{{ 9 ** 99999999 }}",
    "{{ 'a' * 300000000 }}",
    "{{ [0] * 300000000 }}",
    "{{ ('a' * 999999) * 999999 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'a' | center(9999999999) }}",
    "{{ 'a' | center(900000000) }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ 'a'.zfill(999999999) }}",
    "{{ 'a\n' | indent(999999999) }}",
    "{{ [[1]] | tojson(indent=999999999) }}",
    "{{ messages | tojson(indent='x' * 99999999) }}",
    "{{ ('a ' * 400000) | wordwrap(1, true, 'b' * 10000) }}",
    "{{ 'ab' | replace('', 'x' * 999999) | replace('x', 'y' * 999999) }}",
    "{{ ('a,' * 400000).split(',') | join('b' * 100000) }}",
    "{{ messages | batch(10**9, 'x') | list }}",
    "{% set a = 'ab' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set ns = namespace(a=1) %}{% for i in range(99) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}{{ ns.a | string }}",
    "{% set ns = namespace(a='ab') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}{{ ns.a }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a + b %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n + 1) ~ f(n + 2) }}{% endmacro %}{{ f(0) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(200) }}",
    "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{% for a in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "{{ range(99999) | map('string') | map('center', 9999) | list | length }}{{ 1 // 0 }}",
    "{{ ((('<' * 200000) ~ 'a') | striptags | urlize ~ ('http://' * 50000) | urlize) * 9 }}",
    "{{ ('a.' * 300000 ~ '@') | urlize * 2 }}{{ ('(' * 500000 ~ 'http://a' ~ ')' * 500000) | urlize * 9 }}",
    "{{ range(99999) | list | permutations }}",
    "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "not " * 50000 + "1 }}",
    "{{ " + "-" * 50000 + "1 }}",
    "{{ 1" + " + 1" * 100000 + " }}{{ nothing.more }}",
    "{{ 'a'" + " ~ 'a'" * 50000 + " }}{{ nothing.more }}",
    "{% if 1 %}" * 5000 + "{% endif %}" * 5000 + "{{ nothing.more }}",
    "{% for a in [1, 2] %}" * 18 + "x" * 64 + "{% endfor %}" * 18,
    "{% for a in [1, 2] %}" * 60 + "x" + "{% endfor %}" * 60,
    "{% set x %}" * 2000 + "{% endset %}" * 2000 + "{{ nothing.more }}",
    "{{ strftime_now('%Y' * 9999999) }}",
    "{{ lipsum(n=99999, min=999, max=9999) }}",
]  # fmt: skip

CLUMSY = [
    "{{ nothing.more }}", "{% if %}", "{% generation %}", "{% endgeneration %}", "{{ raise_exception('no') }}",
    "{{ raise_exception() }}", "{{ raise_exception(nothing) }}", "{{ 1 / 0 }}", "{{ [1][9].x }}", "{{ {}['a'].b }}",
    "{{ 'a' + 1 }}", "{{ messages | tojson(indent=nothing) }}", "{{ messages.x | tojson }}", "{{ unknown() }}",
    "{{ 'a' | nofilter }}", "{{ 'a' is notest }}", "{% break %}", "{{ '\\N{NO SUCH}' }}", "{{",
    "\x00{{ nothing.more }}", "{{ messages[0].content.encode('utf-16').decode('utf-9') }}",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_bpe(["Hello there"], 270, ["<|end|>"])


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


def outcome(tokenizer, messages, template, limits=None):
    """The rendered text, or the error's."""
    try:
        return render_chat(tokenizer, messages, template=template, limits=limits).text
    except UsageError as error:
        return str(error)


@pytest.mark.parametrize("template", REACHING)
def test_nothing_is_reached(tokenizer, template):
    """An error, or a text that shows nothing of Python, of files or of the machine."""
    text = outcome(tokenizer, TALK, template, LIMITS)
    assert not any(secret in text for secret in ("<class", "root:", "uid=", "<module", "__main__", "<function"))
    # The messages are as they were, and the next rendering works.
    assert TALK == [{"role": "user", "content": "Hello there"}]


@pytest.mark.parametrize("template", [*BOMBS, *CLUMSY], ids=lambda template: template[:40].encode().hex()[:24])
def test_bombs_end_in_an_error(tokenizer, template):
    started = time.monotonic()
    with pytest.raises(UsageError, match="chat template") as caught:
        render_chat(tokenizer, TALK, template=template, limits=LIMITS)
    assert len(str(caught.value)) < 3000
    # The worker's own bound is a second of CPU time; a machine may be busy with other things for long.
    assert time.monotonic() - started < 300
    assert render_chat(tokenizer, TALK, template="{{ messages[0].content }}").text == "Hello there"


def test_memory_is_bounded(tokenizer):
    """The worker's address space has a limit, so a large filter fails there; this process does not grow."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for template in ("{{ 'a' | center(900000000) }}", "{{ [[1]] | tojson(indent=999999999) }}"):
        with pytest.raises(UsageError, match="emory"):
            render_chat(tokenizer, TALK, template=template)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_large_templates_are_refused(tokenizer, tmp_path):
    huge = "{{ messages }}" * 800_000
    assert len(huge) > 10**7
    with pytest.raises(UsageError, match="characters; at most"):
        render_chat(tokenizer, TALK, template=huge)
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(huge)
    with pytest.raises(CheckpointError, match="chat template can need"):
        load_tokenizer(folder)
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="UTF-8"):
        load_tokenizer(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": object()}, {"a": b"x"}, float("nan"), {"a": {1, 2}}, [[]], {"a": 10**5000}]
)
def test_odd_values_in_messages(tokenizer, value):
    """What JSON cannot carry is refused by name, or written as JSON would; nothing hangs."""
    message = {"role": "user", "content": "a", "extra": value}
    text = outcome(tokenizer, [message], "{{ messages[0].extra is defined }}")
    assert text == "True" or "JSON" in text


def test_deep_and_long_messages(tokenizer):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(UsageError, match=r"deep|JSON"):
        render_chat(tokenizer, [{"role": "user", "content": [{"text": deep}]}], template="{{ messages[0].content }}")
    for message in ({"role": deep}, {"role": "user", "content": deep}, {"role": "tool", "content": deep}):
        with pytest.raises(UsageError, match=r"role|parts|deep|JSON"):
            render_chat(tokenizer, [message | {"train": deep}], template="{{ messages[0].content }}")
    long = [{"role": "user", "content": "ab " * 300_000}]
    found = render_chat(tokenizer, long, template="{{ messages[0].content }}")
    assert len(found.text) == 900_000


@pytest.mark.parametrize(
    "text", ["\ud800", "\udc00\ud800", "a\x00b", "\uffff\ufdd0\ufdef", "\u202e<|end|>", "\r\n\x85\u2028"]
)
def test_odd_characters(tokenizer, text):
    messages, plain = [{"role": "user", "content": text}], "{{ messages[0].content }}"
    for source in (plain, "{{ messages[0].content | tojson(ensure_ascii=true) }}"):
        found = render_chat(tokenizer, messages, template=source)
        assert tokenizer.special_tokens["<|end|>"] not in found.ids
    assert render_chat(tokenizer, messages, template=plain).text == text


def test_spelled_control_tokens_stay_text_whatever_a_template_does_with_them(tokenizer):
    end = tokenizer.special_tokens["<|end|>"]
    for source in (
        "{{ messages[0].content | tojson }}", "{{ messages | tojson(indent=2) }}", "{{ messages[0].content | upper }}",
        "{{ messages[0].content | trim | title }}", "{{ messages[0].content[:99] }}", "{{ messages[0] }}",
        "{{ messages[0].content.split('z') | join }}", "{{ messages[0].content | replace('a', '') }}",
        "{% for part in messages[0].parts %}{{ part }}{% endfor %}", "{{ messages[0].parts | join }}",
        "{% for key, value in messages[0].tree | items %}{{ key ~ value }}{% endfor %}", "{{ tools | tojson }}",
        "<|en{{ messages[0].rest }}", "{{ messages[0].start }}d|>",
    ):  # fmt: skip
        message = {
            "role": "user", "content": "a<|end|>a<|end|>", "parts": ["<|en", "d|>", "<|end|>"], "rest": "d|>",
            "start": "<|en", "tree": {"<|end|>": "<|end|>"},
        }  # fmt: skip
        found = render_chat(tokenizer, [message], template=source, tools=[{"<|end|>": ["<|end|>"]}])
        assert end not in found.ids, source
        assert tokenizer.decode(found.ids) == found.text
    assert end in render_chat(tokenizer, TALK, template="{{ '<|en' ~ 'd|>' }}").ids


def test_ours_run_here_and_others_in_the_worker(tokenizer, monkeypatch):
    asked = []

    class Spy:
        def call(self, request, seconds):
            asked.append(request["template"])
            raise UsageError("spied")

    monkeypatch.setattr(rendering, "_worker", Spy)
    for name in chat_templates.TEMPLATES:
        if name != "mistral":
            render_chat(tokenizer, TALK, template=chat_templates.source(name))
    assert not asked
    with pytest.raises(UsageError, match="spied"):
        render_chat(tokenizer, TALK, template=chat_templates.source("chatml") + "\n")
    assert len(asked) == 1


def test_the_worker_and_this_process_render_alike():
    variables = {"messages": [{"role": "assistant", "content": "é\u2028<b>"}], "bos_token": "<s>"}
    for name in chat_templates.TEMPLATES:
        source = chat_templates.source(name)
        if name not in ("alpaca", "alpaca-short", "vicuna", "llama-2", "mistral", "gemma"):  # a user speaks first there
            here = render(source, variables, Signs("\ufdd0", ""))
            assert rendering.render_safely("{# not ours #}" + source, variables, Signs("\ufdd0", "")) == here


@pytest.mark.parametrize(
    "answer",
    [None, [], {}, {"text": 3, "blocks": None}, {"text": "a", "blocks": [{"start": 0, "end": 9, "message": None}]},
     {"text": "abc", "blocks": [{"start": 2, "end": 1, "message": 0}]}, {"text": "a", "blocks": [{}]},
     {"text": "a", "blocks": [{"start": "0", "end": 1, "message": 0}]}, {"text": "a", "blocks": 7}],
)  # fmt: skip
def test_an_answer_from_a_broken_sandbox_is_not_believed(answer):
    with pytest.raises(UsageError, match="broke its sandbox"):
        rendering._read(answer)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of open files hold like this on Linux")
def test_the_worker_can_open_nothing(tmp_path):
    """Even code that breaks out of the template reads no file, opens no socket, changes and starts nothing."""
    secret = tmp_path / "secret"
    secret.write_text("secret")
    worker = Worker("worker_guest:run", SandboxLimits(seconds=2, memory_bytes=256 << 20))

    def succeeds(statement):
        outcome = worker.call({"code": statement})
        assert outcome.kind in ("ok", "error"), outcome
        return outcome.ok

    try:
        assert succeeds("pass")
        assert not succeeds("1 / 0")
        for statement in (
            f"open({str(secret)!r})", f"os.open({str(secret)!r}, 0)", "os.listdir('/')", "os.pipe()", "os.dup(0)",
            "socket.socket()", f"os.remove({str(secret)!r})", f"os.rename({str(secret)!r}, '/x')",
            f"os.truncate({str(secret)!r}, 1)", "os.mkdir('x')", f"os.chmod({str(secret)!r}, 0)", "import ftplib",
            f"os.symlink('/', {str(tmp_path / 'link')!r})", "os.execv('/bin/true', ['true'])",
            "assert os.system('true') == 0", "open('x', 'w')",
        ):  # fmt: skip
            assert not succeeds(statement), statement
    finally:
        worker.close()
    assert secret.read_text() == "secret"
    secret.unlink()


def test_a_worker_that_does_not_start_says_so():
    with pytest.raises(GroundupError, match="did not start"):
        Worker("groundup.nothing:here").call({})
