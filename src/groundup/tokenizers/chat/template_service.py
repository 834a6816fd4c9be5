"""What runs in the sandboxed worker: `template.render`, JSON in and JSON out.

The worker can open no file once it serves. Python and Jinja import some modules at their first use, so this module uses
them when it is imported.
"""

import contextlib
from dataclasses import asdict
from typing import Any

from groundup.base.errors import UsageError
from groundup.tokenizers.chat.template import Limits, Signs, render

WARM_UP = (
    r"{{ 'a\n\u00e9' | pprint | wordwrap(5) | urlize | title }}{{ {'a': 1} | xmlattr }}{{ 'é' | urlencode }}"
    "{{ [1, 2] | random }}{{ strftime_now('%d %b %Y %p') }}{{ {'a': 'é'} | tojson(ensure_ascii=true, indent=1) }}"
    "{% generation %}{{ '%5.2f' | format(1.5) }}{{ '{:d}'.format(3) }}{% endgeneration %}{{ 'a b' | striptags }}",
    "{{ nothing.more }}",
    "{{ 1 / 0 }}",
    "{% if %}",
)


def answer(template: str, variables: dict[str, Any], signs: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """The rendered text and its blocks; a refusal is {"error": text}."""
    try:
        rendered = render(template, variables, Signs(**signs), Limits(**limits))
    except UsageError as error:
        return {"error": str(error)}
    return asdict(rendered)


for _template in WARM_UP:
    with contextlib.suppress(UsageError):
        render(_template, {}, Signs("\ufdd0", ""))
