"""Conversations as transformers' apply_chat_template writes them.

The templates are our own, in the forms that the families of models are trained on, and
between them use what published templates use: loops, slices, namespaces, macros, white
space control, filters, tests, methods.
"""

from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from golden_common import provenance, write_cases

LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}\
{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}\
{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}\
{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}\
{% endif %}{% endfor %}"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{#- The system's words come first, whether there are some or not. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
        {{- message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

CHATML = """\
{% for message in messages %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}
"""

THINKING = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- "\\n" }}{{- tool | tojson }}
    {%- endfor %}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string \
and not(message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n')\
.split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or (not loop.last and reasoning)) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' \
+ content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("roles must alternate") }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.get("tool_calls") %}
        {{- message.tool_calls | tojson }}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
{{- "" if user_messages else raise_exception("no user speaks") }}
"""

ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] if item.type == 'text' -%}
            {{ item['text'] | trim }}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

# Not of any family: what the language has beside.
LANGUAGE = """\
{#- A comment
   of two lines -#}
{%- macro turn(name, text='nothing', mark="*") -%}
  [{{ mark }}{{ name | upper }}{{ mark }}: {{ text }}]
{%- endmacro %}
{%- for m in messages if m.role != 'system' %}
  {{ turn(m.role, m.content | replace('\\n', ' / ')) }}
  {%+ if loop.first %}first{% elif loop.last %}last{% else %}middle {{ loop.index }}{% endif %}

{{ loop.index0 ~ '/' ~ loop.length ~ ' ' ~ (loop.previtem.role if loop.previtem else none) }}
{% else %}nobody speaks
{% endfor -%}
{{ turn('end', mark='=') }}
{% set all %}{{ messages | map(attribute='role') | join(', ') }}{% endset %}
{{ all | length }} {{ all | title }} {{ all | capitalize }} {{ all.split(', ') | tojson }}
{{ {'a': [1, 2.5, true, none, 'x"\\u00e9'], 'b': {}} | tojson }} {{ [1, 2] + [3] }} {{ (1, 2)[1] }}
{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 * 3 - 1 }} {{ 1.0 + 1 }} {{ 'ab' ~ 1 }}
{{ messages[-1].content[:3] }}|{{ messages[-1].content[-2:] }}|{{ 'abcdef'[::-2] }}|\
{{ 'abc'[5] is undefined }}|{{ [1, 2, 3][5:1:-1] }}
{{ missing | default('fallback') }} {{ '' | default('empty', true) }} {{ missing is defined }}
{{ 'b' in 'abc' and 'd' not in 'abc' }} {{ 1 in [1, 2] }} {{ 'role' in messages[0] }}
{%- for key, value in messages[0].items() %} {{ key }}={{ value | string | length }}{% endfor %}
{% for i in range(5) %}{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}\
{{ i }}{% if not loop.last %},{% endif %}{% endfor %}
{{ ['x', 'y'] | first }} {{ ['x', 'y'] | last }} {{ 'xyz' | list }} {{ ' pad ' | trim }}.
{{ 'a\\tb' }} {{ "it's" }} {{ 'one' 'two' }} {{ 3 is odd }} {{ 4 is even }} {{ 'x' is string }}
  {%- set x = 1 if false %}
[{{ x }}] {{ x is defined }} {{ not x }} {{ none }} {{ true }} {{ 1 == 1.0 }} {{ 'a' < 'b' }}
{{ {'k': 'v'}.get('k') }} {{ {'k': 'v'}.get('n', 'other') }} {{ {'k': 1} == {'k': 1} }}
{{ 'line\\nnext\\n\\nend' | indent(2) }}"""

TEMPLATES = {
    "llama2": LLAMA2, "llama3": LLAMA3, "chatml": CHATML, "thinking": THINKING,
    "mistral": MISTRAL, "zephyr": ZEPHYR, "gemma": GEMMA, "language": LANGUAGE,
}

CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "You are terse."), ("user", "Who was Natasha?")],
    [("user", "Hi\n"), ("assistant", " Hello there. "), ("user", "  How are you?  ")],
    [("system", " Be kind.\n"), ("user", "One"), ("assistant", "Two"), ("user", "Three"),
     ("assistant", "Four"), ("user", "Five")],
    [("user", "Why?"), ("assistant", "<think>\nbecause\n</think>\n\nSo."), ("user", "Oh")],
    [("user", "caf\u00e9 \u4f60\u597d \U0001f600\u3000\u00a0"), ("assistant", ""), ("user", "")],
    [("user", "{{ bos_token }} {% if %} <|im_end|> </s> 'quotes' \"more\" \\n")],
    [("user", "a"), ("user", "b")],
    [("assistant", "I begin")],
    [("user", "ends with an answer"), ("assistant", "<think>x</think>y\n")],
]

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(template, messages):
    """The text, or None where the template refuses."""
    conversation = [{"role": role, "content": content} for role, content in messages]
    # Ours has no clock (see chat_template.h); transformers is given the date it falls back to.
    extra = {"date_string": "26 Jul 2024"} if template == LLAMA3 else {}
    try:
        texts, _ = render_jinja_template([conversation], chat_template=template,
                                         add_generation_prompt=True, **SPECIAL_TOKENS, **extra)
        return texts[0]
    except Exception as error:  # whatever a template may raise
        return {"refused": type(error).__name__}


def make(out: Path) -> None:
    cases = [{"template": name, "messages": messages, "expected": render(template, messages)}
             for name, template in TEMPLATES.items() for messages in CONVERSATIONS]
    header = provenance("chat", ["transformers", "jinja2"], {})
    header["special_tokens"] = SPECIAL_TOKENS
    header["templates"] = TEMPLATES
    write_cases(out / "chat_templates.json", header, {"cases": cases})
