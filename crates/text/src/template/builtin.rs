//! Templates for models that carry none, by the name of their format. Written for this program after the formats that the
//! models' makers document; each takes the system turn where its format has a place for one.

/// One built-in template.
pub(super) struct Builtin {
    pub(super) name: &'static str,
    pub(super) source: &'static str,
}

/// All of them, by name.
pub(super) const TEMPLATES: &[Builtin] = &[
    Builtin { name: "chatml", source: CHATML },
    Builtin { name: "command-r", source: COMMAND_R },
    Builtin { name: "deepseek", source: DEEPSEEK },
    Builtin { name: "gemma", source: GEMMA },
    Builtin { name: "granite", source: GRANITE },
    Builtin { name: "llama2", source: LLAMA2 },
    Builtin { name: "llama3", source: LLAMA3 },
    Builtin { name: "mistral", source: MISTRAL },
    Builtin { name: "phi3", source: PHI3 },
    Builtin { name: "vicuna", source: VICUNA },
    Builtin { name: "zephyr", source: ZEPHYR },
];

const CHATML: &str = "\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const COMMAND_R: &str = "\
{{ bos_token }}{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT', 'tool': 'SYSTEM'} %}\
{% for m in messages %}\
{{ '<|START_OF_TURN_TOKEN|><|' + names[m.role] + '_TOKEN|>' + (m.content | trim) + '<|END_OF_TURN_TOKEN|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}";

const DEEPSEEK: &str = "\
{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\
{% elif m.role == 'assistant' %}{{ '<\u{ff5c}Assistant\u{ff5c}>' + m.content + '<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>' }}\
{% else %}{{ '<\u{ff5c}User\u{ff5c}>' + m.content }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<\u{ff5c}Assistant\u{ff5c}>' }}{% endif %}";

// Gemma has no system turn; its maker's advice is to put the text before the first user turn.
const GEMMA: &str = "\
{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
{% if m.role == 'system' %}{% set ns.system = ns.system + (m.content | trim) + '\n\n' %}\
{% else %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\n' }}\
{% if m.role != 'assistant' %}{{ ns.system }}{% set ns.system = '' %}{% endif %}\
{{ (m.content | trim) + '<end_of_turn>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

const GRANITE: &str = "\
{% for m in messages %}\
{{ '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}";

// The system text stands inside the first user turn, between its own marks.
const LLAMA2: &str = "\
{% set ns = namespace(system='') %}{% for m in messages %}\
{% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}\
{% elif m.role == 'assistant' %}{{ ' ' + (m.content | trim) + ' ' + eos_token }}\
{% else %}{{ bos_token + '[INST] ' + ns.system + (m.content | trim) + ' [/INST]' }}{% set ns.system = '' %}\
{% endif %}{% endfor %}";

const LLAMA3: &str = "\
{{ bos_token }}{% for m in messages %}\
{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\n\n' }}\
{{ (m.content | trim) + '<|eot_id|>' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

const MISTRAL: &str = "\
{{ bos_token }}{% set ns = namespace(system='') %}{% for m in messages %}\
{% if m.role == 'system' %}{% set ns.system = m.content + '\n\n' %}\
{% elif m.role == 'assistant' %}{{ ' ' + (m.content | trim) + eos_token }}\
{% else %}{{ '[INST] ' + ns.system + m.content + ' [/INST]' }}{% set ns.system = '' %}{% endif %}{% endfor %}";

const PHI3: &str = "\
{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";

const VICUNA: &str = "\
{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n\n' }}\
{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + eos_token + '\n' }}\
{% else %}{{ 'USER: ' + m.content + '\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";

const ZEPHYR: &str = "\
{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}";
