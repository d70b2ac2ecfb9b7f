// A chat template of any bytes is refused, or renders or fails within its limits.

#include <cstdint>

#include "base/check.h"
#include "model/chat_template/chat_template.h"
#include "tests/fuzz/driver.h"

namespace sauva {

std::vector<std::string> SeedInputs() {
  return {
      "{% for message in messages %}\n{{'<|' + message['role'] + '|>\\n' + message['content']}}\n"
      "{% endfor %}\n{% if add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n",
      "{%- set ns = namespace(n=messages|length - 1, x='') %}{%- for m in messages[::-1] if m.role "
      "!= 'system' -%}{% set ns.x = ns.x ~ m.content.split('a')[0].lstrip('\\n') %}"
      "{{ loop.index0 % 2 == 0 and not loop.last }}{% else %}none{% endfor %}{{ ns.x | upper }}",
      "{% macro f(a, b='c') %}[{{ a ~ b }}]{% endmacro %}{{ f(1) }}{% set t %}{{ f('x', b=[1, "
      "{'k': none}]) }}{% endset %}{{ t | replace('x', 'yy') | tojson }}{{ range(3) | join(',') }}",
      "{{ raise_exception('no') if messages is not defined else messages[0].items() | list }}"
      "{{ 'abc'[1:-1] }}{{ (7 // -2, -7 % 3, 1.5 * 2) | string }}{# note #}",
  };
}

}  // namespace sauva

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sauva;
  const std::string source(reinterpret_cast<const char*>(data), size);
  const auto made = ChatTemplate::Create(source, {{"bos_token", "<s>"}, {"eos_token", "</s>"}});
  if (!made.ok()) {
    Check(made.status().code() == absl::StatusCode::kInvalidArgument, "a template is refused");
    return 0;
  }
  const auto text = (*made)->Render({{"system", "be kind"}, {"user", "a\n b"}, {"assistant", ""}});
  Check(text.ok() || text.status().code() == absl::StatusCode::kInvalidArgument,
        "a rendering ends well or says why not");
  return 0;
}
