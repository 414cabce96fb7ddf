"""How well-known models write tool calls: the least of a template, and what the model writes.

Each template takes turns as ChatML does, with what the family adds: `CALLS` is its way to write an
assistant's calls. The raw text is two calls, `look` with two arguments and `ping` with none.
"""

# ruff: noqa: RUF001  the vertical lines are DeepSeek's own

from __future__ import annotations

from dataclasses import dataclass, replace

from service.domain.model import ModelInfo
from tests.fakes.engine import FAKE_MODEL

_FRAME = """{%- if tools %}{{ '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- if message.tool_calls %}CALLS{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
_EACH = "{%- for call in message.tool_calls %}{%- set f = call.function %}"
_ONE_ONLY = (
    "{%- if message.tool_calls | length > 1 %}{{ raise_exception('one at a time') }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """`tokens` are the control tokens that calls are written with."""

    name: str
    calls: str
    written: str
    tokens: tuple[str, ...] = ()
    one_only: bool = False

    @property
    def model(self) -> ModelInfo:
        control = (*FAKE_MODEL.control_tokens, *self.tokens)
        return replace(
            FAKE_MODEL,
            chat_template=_FRAME.replace("CALLS", self.calls),
            control_tokens=control,
        )


FAMILIES = (
    Family(
        "Hermes, Qwen 2.5 and 3, Granite 4",
        _EACH + "{{ '\\n' if not loop.first }}{{ '<tool_call>\\n{\"name\": \"' + f.name + "
        "'\", \"arguments\": ' + (f.arguments | tojson) + '}\\n</tool_call>' }}{% endfor %}",
        '<tool_call>\n{"name": "look", "arguments": {"city": "Róma 😀", "n": 7}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>',
    ),
    Family(
        "Llama 3",
        _ONE_ONLY + _EACH + '{{ \'{"name": "\' + f.name + \'", "parameters": \' + '
        "(f.arguments | tojson) + '}' }}{% endfor %}",
        '{"name": "look", "parameters": {"city": "Róma 😀", "n": 7}}',
        one_only=True,
    ),
    Family(
        "Mistral Nemo",
        "{{ '[TOOL_CALLS][' }}" + _EACH + "{%- if call.id | length != 9 %}"
        "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}"
        '{% endif %}{{ \'{"name": "\' + f.name + \'", "arguments": \' + (f.arguments | tojson) + '
        "'," + " \"id\": \"' + call.id + '\"}' }}{{ ', ' if not loop.last }}{% endfor %}"
        "{{ ']' }}",
        '[TOOL_CALLS][{"name": "look", "arguments": {"city": "Róma 😀", "n": 7}, "id": "abcdefgh1"}'
        ', {"name": "ping", "arguments": {}, "id": "abcdefgh2"}]',
        tokens=("[TOOL_CALLS]",),
    ),
    Family(
        "Mistral Small 3.2",
        _EACH + "{{ '[TOOL_CALLS]' + f.name + '[CALL_ID]' + call.id + '[ARGS]' + "
        "(f.arguments | tojson) }}{% endfor %}",
        '[TOOL_CALLS]look[CALL_ID]abcdefgh1[ARGS]{"city": "Róma 😀", "n": 7}'
        "[TOOL_CALLS]ping[CALL_ID]abcdefgh2[ARGS]{}",
        tokens=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
    ),
    Family(
        "DeepSeek R1",
        "{{ '<｜tool▁calls▁begin｜>' }}" + _EACH + "{{ '\\n' if not loop.first }}"
        "{{ '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + f.name + '\\n```json\\n' + "
        "(f.arguments | tojson) + '\\n```<｜tool▁call▁end｜>' }}{% endfor %}"
        "{{ '<｜tool▁calls▁end｜>' }}",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n"
        '{"city": "Róma 😀", "n": 7}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>ping\n```json\n{}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
    ),
    Family(
        "Kimi K2",
        "{{ '<|tool_calls_section_begin|>' }}" + _EACH + "{{ '<|tool_call_begin|>functions.' + "
        "f.name + ':' + loop.index0 | string + '<|tool_call_argument_begin|>' + "
        "(f.arguments | tojson) + '<|tool_call_end|>' }}{% endfor %}"
        "{{ '<|tool_calls_section_end|>' }}",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.look:0"
        '<|tool_call_argument_begin|>{"city": "Róma 😀", "n": 7}<|tool_call_end|>'
        "<|tool_call_begin|>functions.ping:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
        "<|tool_calls_section_end|>",
    ),
    Family(
        "Functionary 3.1",
        _EACH + "{{ '<function=' + f.name + '>' + (f.arguments | tojson) + '</function>' }}"
        "{% endfor %}",
        '<function=look>{"city": "Róma 😀", "n": 7}</function><function=ping>{}</function>',
    ),
    Family(
        "Apertus",
        "{{ '<|tools_prefix|>[' }}" + _EACH + "{{ '{\"' + f.name + '\": ' + (f.arguments | tojson)"
        " + '}' }}{{ ', ' if not loop.last }}{% endfor %}{{ ']<|tools_suffix|>' }}",
        '<|tools_prefix|>[{"look": {"city": "Róma 😀", "n": 7}}, {"ping": {}}]<|tools_suffix|>',
    ),
    Family(
        "Solar",
        "{{ '<|tool_calls|>' }}" + _EACH + "{{ '<|tool_call:begin|>' + call.id + "
        "'<|tool_call:name|>' + f.name + '<|tool_call:args|>' + (f.arguments | tojson) + "
        "'<|tool_call:end|>' }}{% endfor %}",
        "<|tool_calls|><|tool_call:begin|>abcdefgh1<|tool_call:name|>look<|tool_call:args|>"
        '{"city": "Róma 😀", "n": 7}<|tool_call:end|><|tool_call:begin|>abcdefgh2'
        "<|tool_call:name|>ping<|tool_call:args|>{}<|tool_call:end|>",
    ),
    Family(
        "Qwen 3 Coder, Nemotron 3",
        _EACH + "{{ '\\n' if not loop.first }}{{ '<tool_call>\\n<function=' + f.name + '>' }}"
        "{% for key, value in f.arguments | items %}{{ '\\n<parameter=' + key + '>\\n' + "
        "value | string + '\\n</parameter>' }}{% endfor %}"
        "{{ '\\n</function>\\n</tool_call>' }}{% endfor %}",
        "<tool_call>\n<function=look>\n<parameter=city>\nRóma 😀\n</parameter>\n<parameter=n>\n7\n"
        "</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=ping>\n</function>\n</tool_call>",
    ),
    Family(
        "GLM 4",
        _EACH + "{{ '\\n' if not loop.first }}{{ '<tool_call>' + f.name }}"
        "{% for key, value in f.arguments | items %}{{ '\\n<arg_key>' + key + "
        "'</arg_key>\\n<arg_value>' + value | string + '</arg_value>' }}{% endfor %}"
        "{{ '\\n</tool_call>' }}{% endfor %}",
        "<tool_call>look\n<arg_key>city</arg_key>\n<arg_value>Róma 😀</arg_value>\n"
        "<arg_key>n</arg_key>\n<arg_value>7</arg_value>\n</tool_call>\n<tool_call>ping\n</tool_call>",
    ),
    Family(
        "MiniMax M2",
        "{{ '<minimax:tool_call>' }}" + _EACH + "{{ '\\n<invoke name=\"' + f.name + '\">' }}"
        "{% for key, value in f.arguments | items %}{{ '\\n<parameter name=\"' + key + '\">' + "
        "value | string + '</parameter>' }}{% endfor %}{{ '\\n</invoke>' }}{% endfor %}"
        "{{ '\\n</minimax:tool_call>' }}",
        '<minimax:tool_call>\n<invoke name="look">\n<parameter name="city">Róma 😀</parameter>\n'
        '<parameter name="n">7</parameter>\n</invoke>\n<invoke name="ping">\n</invoke>\n'
        "</minimax:tool_call>",
    ),
    Family(
        "DeepSeek V3.2",
        "{{ '<｜DSML｜function_calls>' }}" + _EACH + "{{ '\\n<｜DSML｜invoke name=\"' + f.name + "
        "'\">' }}{% for key, value in f.arguments | items %}{{ '\\n<｜DSML｜parameter name=\"' + "
        "key + '\" string=\"' + ('true' if value is string else 'false') + '\">' + "
        "value | string + '</｜DSML｜parameter>' }}{% endfor %}{{ '\\n</｜DSML｜invoke>' }}"
        "{% endfor %}{{ '\\n</｜DSML｜function_calls>' }}",
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="look">\n'
        '<｜DSML｜parameter name="city" string="true">Róma 😀</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="n" string="false">7</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="ping">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    ),
)
