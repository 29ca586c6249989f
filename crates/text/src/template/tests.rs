//! Rows about single features, the limits, and what hostile templates try.

use std::time::Instant;

use serde_json::json;

use super::*;
use crate::error::Error;
use crate::limits;

fn input() -> RenderInput {
    RenderInput {
        messages: vec![
            json!({"role": "system", "content": " be brief "}),
            json!({"role": "user", "content": "hi", "items": 1, "x": {"items": [1.5, null, true], "é": "<b>"}}),
        ],
        add_generation_prompt: true,
        bos_token: "<s>".into(),
        eos_token: "</s>".into(),
        now: Some("2026-08-18T12:34:56".parse().unwrap()),
        ..RenderInput::default()
    }
}

fn render(source: &str) -> Result<String> {
    ChatTemplate::from_source(source)?.render(&input())
}

#[test]
fn python_prints_the_same() {
    let rows = [
        ("{{ none }}{{ true }}{{ 1.0 }}{{ 1e20 }}{{ [none, 'a\\'b'] }}", "NoneTrue1.01e+20[None, \"a'b\"]"),
        ("{{ messages[1].x }}", "{'items': [1.5, None, True], 'é': '<b>'}"),
        ("{{ messages[1].x|tojson }}", "{\"items\": [1.5, null, true], \"é\": \"<b>\"}"),
        ("{{ [1, {}]|tojson(indent=2) }}", "[\n  1,\n  {}\n]"),
        ("{{ {'b': 'é', 'a': 1}|tojson(ensure_ascii=true, sort_keys=true) }}", "{\"a\": 1, \"b\": \"\\u00e9\"}"),
        ("{{ [1, 2]|tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ messages[1]['items'] }} {{ messages[1].items()|list|length }}", "1 4"),
        (
            "{{ messages[1].x.items is defined }} {{ messages[1].x.items }}",
            "True <built-in method items of dict object>",
        ),
        ("{{ messages[1].nope }}{{ messages[1].get('nope') }}{{ messages[1].get('nope', 2) }}", "None2"),
        (
            "{{ (1, 2) }} {{ (1,) }} {{ 'abc'[::-1] }} {{ 'abc'[9:-9:-1] }} {{ [1,2,3][1:] }}",
            "(1, 2) (1,) cba cba [2, 3]",
        ),
        ("{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }}", "3 -4 1 8 3.5"),
        ("{{ strftime_now('%d %b %Y') }}", "18 Aug 2026"),
        (
            "{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "13",
        ),
        ("{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "4"),
        ("{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}", "1213"),
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{% generation %}x{% endgeneration %}", "x"),
        (
            "{{ messages is sequence }} {{ 'a' is sequence }} {{ none is iterable }} {{ {} is mapping }}",
            "True True False True",
        ),
        ("{{ messages|map(attribute='role')|join(', ') }}", "system, user"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "1"),
        ("{{ 'a|b'|safe + '<' }}", "a|b&lt;"),
        ("{{ documents }}{{ tools }}{{ unknown }}", "NoneNone"),
    ];
    for (source, expected) in rows {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
}

#[test]
fn strings_have_pythons_methods() {
    let rows = [
        ("' a b  c '.split()", "['a', 'b', 'c']"),
        ("' a b  c '.split(none, 1)", "['a', 'b  c ']"),
        ("' a b  c '.rsplit(maxsplit=1)", "[' a b', 'c']"),
        ("'a,b,c'.split(',', 1)", "['a', 'b,c']"),
        ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
        ("'xxaxx'.strip('x') ~ 'xxaxx'.lstrip('x') ~ 'xxaxx'.rstrip('x')", "aaxxxxa"),
        ("'\\x1c a\\n'.strip()", "a"),
        ("'a-b-c'.partition('-')", "('a', '-', 'b-c')"),
        ("'a-b-c'.rpartition('-')", "('a-b', '-', 'c')"),
        ("'abc'.partition('-')", "('abc', '', '')"),
        ("'abc'.startswith('b', 1) ~ 'abc'.endswith(('x', 'c'))", "TrueTrue"),
        ("'aXbX'.replace('X', '-', 1) ~ 'ab'.replace('', '.')", "a-bX.a.b."),
        ("'éab'.find('a') ~ 'éab'.rfind('z') ~ 'aXa'.find('a', 1)", "1-12"),
        ("'ab'.center(5, '*') ~ 'ab'.ljust(4) ~ 'ab'.rjust(4) ~ '-7'.zfill(4)", "**ab*ab    ab-007"),
        ("'hello wORLD'.title() ~ 'hELLO'.capitalize() ~ 'aB'.swapcase()", "Hello WorldHelloAb"),
        ("'a\\nb\\r\\nc\\n'.splitlines() ~ 'a\\nb'.splitlines(true)", "['a', 'b', 'c']['a\\n', 'b']"),
        ("'prefix-x'.removeprefix('prefix-') ~ 'x.txt'.removesuffix('.txt')", "xx"),
        ("', '.join(['a', 'b']) ~ 'aaa'.count('aa') ~ '12'.isdigit() ~ ''.isalpha()", "a, b1TrueFalse"),
        ("'{} {:>3}'.format('a', 1)", "a   1"),
        ("[1, 2, 1].count(1) ~ [1, 2].index(2)", "21"),
    ];
    for (expression, expected) in rows {
        assert_eq!(render(&format!("{{{{ {expression} }}}}")).unwrap(), expected, "{expression}");
    }
}

#[test]
fn what_python_refuses_is_an_error() {
    let rows = [
        "{{ 'a' + 1 }}",
        "{{ 'a' + none }}",
        "{{ unknown.x }}",
        "{{ messages[0].nope.x }}",
        "{% for x in none %}{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ messages[1].update({}) }}",
        "{{ messages[1].x|map('upper')|tojson }}",
        "{{ unknown|tojson }}",
        "{{ ', '.join([1]) }}",
        "{{ 'a'.index('b') }}",
        "{{ 'a'.nope() }}",
        "{{ nope() }}",
        "{{ 'a'|nope }}",
        "{% include 'x' %}",
        "{% import 'x' as x %}",
        "{% extends 'x' %}",
    ];
    for source in rows {
        assert!(render(source).is_err(), "{source}");
    }
}

#[test]
fn a_refusal_carries_its_words() {
    let error = render("{{ raise_exception('only ' ~ 1) }}").unwrap_err();
    assert!(matches!(&error, Error::TemplateRaised(words) if words == "only 1"), "{error}");
    let long = render("{{ raise_exception('é' * 100000) }}").unwrap_err();
    assert!(long.to_string().len() < limits::TEMPLATE_ERROR_BYTES + 200);
    let error = ChatTemplate::from_source("a\n{% if %}").unwrap_err().to_string();
    assert!(error.contains("line 2"), "{error}");
}

/// Every one ends soon, with an error that says what was too much or wrong, or harmlessly.
#[test]
fn hostile_templates_end() {
    let nested = |open: &str, inside: &str, close: &str, n: usize| open.repeat(n) + inside + &close.repeat(n);
    let refused = [
        "{% for i in range(2000000000) %}x{% endfor %}".to_owned(),
        "{% for m in messages %}{{ m.content".to_owned(),
        "{{ ''.__class__.__mro__[1].__subclasses__() }}".to_owned(),
        "{{ cycler.__init__.__globals__.os.popen('touch canary').read() }}".to_owned(),
        "{{ 1 // 0 }}".to_owned(),
        "{{ 1 % 0 }}".to_owned(),
        nested("{% if 1 %}", "x", "{% endif %}", 50_000),
        format!("{{{{ {} }}}}", nested("(", "1", ")", 100_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ {}a }}}}", "a.".repeat(100_000)),
        format!("{{{{ a{} }}}}", "|d".repeat(100_000)),
        format!("{{{{ {} }}}}", vec!["a"; 100_000].join(" ~ ")),
        format!("{{{{ {} }}}}", nested("[", "", "]", 100_000)),
        format!("{{{{ {} }}}}", nested("{'a':", "1", "}", 100_000)),
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}".to_owned(),
        "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}".to_owned(),
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}".to_owned(),
        "{{ 'a' * 100000000000 }}".to_owned(),
        "{{ [1] * 100000000000 }}".to_owned(),
        "{{ 'a'.center(100000000000) }}".to_owned(),
        "{{ 'a'.ljust(40000000) }}".to_owned(),
        "{{ 'a'|indent(100000000000, true) }}".to_owned(),
        "{{ 'a\na'|indent(40000000) }}".to_owned(),
        "{{ '%99999999999d'|format(1) }}".to_owned(),
        "{{ '{:>99999999999}'.format(1) }}".to_owned(),
        "{{ '{:>{}}'.format(1, 99999999999) }}".to_owned(),
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}".to_owned(),
        "{{ ('a' * 1000000).join(range(99999)|map('string')) }}".to_owned(),
        "{{ [1]|tojson(indent=100000000000) }}".to_owned(),
        "{{ range(1000)|batch(100000000000, 'x')|list }}".to_owned(),
        "{{ range(10)|slice(100000000000)|list }}".to_owned(),
        "{{ strftime_now('%99999999999d') }}".to_owned(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{{ messages[::0] }}".to_owned(),
        "{% for i in range(200) %}{{ 'aaaaaaaaaa' * 100000 }}{% endfor %}".to_owned(),
        "{{ nope.nope.nope }}".to_owned(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% if 'x' in messages %}{% endif %}{% endfor %}{% endfor %}".to_owned(),
        " ".repeat(limits::TEMPLATE_SOURCE_BYTES + 1),
    ];
    for source in &refused {
        let start = Instant::now();
        let error = render(source).expect_err(&source.chars().take(80).collect::<String>()).to_string();
        assert!(!error.is_empty() && error.len() < 4096);
        println!("{:>6} ms {} -> {}", start.elapsed().as_millis(), source.chars().take(60).collect::<String>(), error);
    }
    let harmless = [
        "{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}",
        "\u{feff}{{ '\\ud800' }}",
        "{{ '{' }}{{ '}}' }}{%",
        "{#",
        "{% raw %}",
        "{{ 9223372036854775807 + 1 }}{{ -9223372036854775808 // -1 }}",
    ];
    for source in harmless {
        println!("{source} -> {:?}", render(source).map(|text| text.len()));
    }
}

/// Values nested as deep as the fuel lasts: what makes, prints, compares and drops them must not run out of stack.
#[test]
fn deep_values_do_no_harm() {
    let nest = ["[ns.s]", "{'a': ns.s}", "(ns.s,)"];
    let used = ["", "{{ ns.s }}", "{{ ns.s|tojson }}", "{{ ns.s ~ '' }}", "{{ ns.s|list }}"];
    for nest in nest {
        for (used, n) in used.iter().zip([1000, 100, 100, 100, 100]) {
            let loops = format!("{{% for i in range({n}) %}}{{% for j in range(100) %}}");
            let source = format!(
                "{{% set ns = namespace(s=[]) %}}{loops}{{% set ns.s = {nest} %}}{{% endfor %}}{{% endfor %}}{used}"
            );
            println!("{nest} {used}: {:?}", render(&source).map(|text| text.len()).map_err(|e| e.to_string()));
        }
    }
}

#[test]
fn limits_have_two_sides() {
    let nested = |n: usize| "{% if 1 %}".repeat(n) + "x" + &"{% endif %}".repeat(n);
    assert_eq!(render(&nested(70)).unwrap(), "x");
    assert!(render(&nested(limits::TEMPLATE_DEPTH + 1)).is_err());
    let padded = |n: usize| format!("{{#{}#}}x", " ".repeat(n - 5));
    assert_eq!(render(&padded(limits::TEMPLATE_SOURCE_BYTES)).unwrap(), "x");
    assert!(matches!(render(&padded(limits::TEMPLATE_SOURCE_BYTES + 1)), Err(Error::TemplateLimit { .. })));
    let sum = |n: usize| format!("{{{{ {} }}}}", vec!["1"; n.div_ceil(2)].join("+"));
    assert_eq!(render(&sum(limits::TEMPLATE_TAG_TOKENS - 1)).unwrap(), (limits::TEMPLATE_TAG_TOKENS / 2).to_string());
    assert!(matches!(render(&sum(limits::TEMPLATE_TAG_TOKENS + 1)), Err(Error::TemplateLimit { what: "one tag", .. })));
    let mebibytes =
        |n: usize| format!("{{% set a = 'aaaaaaaa' * 131072 %}}{{% for i in range({n}) %}}{{{{ a }}}}{{% endfor %}}");
    assert_eq!(render(&mebibytes(32)).unwrap().len(), limits::TEMPLATE_OUTPUT_BYTES);
    assert!(matches!(render(&mebibytes(33)), Err(Error::TemplateLimit { what: "the output", .. })));
    let centred = |n: usize| format!("{{% set a = 'a'.center({n}) %}}ok");
    assert_eq!(render(&centred(limits::TEMPLATE_STRING_BYTES)).unwrap(), "ok");
    assert!(matches!(
        render(&centred(limits::TEMPLATE_STRING_BYTES + 1)),
        Err(Error::TemplateLimit { what: "one string", .. })
    ));
}

#[test]
fn long_conversations_do_not_run_dry() {
    let turn = |role: &str| json!({"role": role, "content": "word ".repeat(2000)});
    let mut input = input();
    input.messages = (0..1000).map(|i| turn(if i % 2 == 0 { "user" } else { "assistant" })).collect();
    let text = ChatTemplate::builtin("chatml").unwrap().render(&input).unwrap();
    assert!(text.len() > 10_000_000);
}

#[test]
fn builtins_render() {
    let mut turns = input();
    turns.messages.push(json!({"role": "assistant", "content": "yes"}));
    turns.messages.push(json!({"role": "user", "content": "why"}));
    let rows = [
        (
            "chatml",
            "<|im_start|>system\n be brief <|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\nwhy<|im_end|>\n<|im_start|>assistant\n",
        ),
        ("llama2", "<s>[INST] <<SYS>>\n be brief \n<</SYS>>\n\nhi [/INST] yes </s><s>[INST] why [/INST]"),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nbe brief<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nyes<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nwhy<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST]  be brief \n\nhi [/INST] yes</s>[INST] why [/INST]"),
        (
            "gemma",
            "<s><start_of_turn>user\nbe brief\n\nhi<end_of_turn>\n<start_of_turn>model\nyes<end_of_turn>\n<start_of_turn>user\nwhy<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            "phi3",
            "<|system|>\n be brief <|end|>\n<|user|>\nhi<|end|>\n<|assistant|>\nyes<|end|>\n<|user|>\nwhy<|end|>\n<|assistant|>\n",
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(ChatTemplate::builtin(name).unwrap().render(&turns).unwrap(), expected, "{name}");
    }
    for name in ChatTemplate::builtin_names() {
        let template = ChatTemplate::builtin(name).unwrap();
        assert!(template.has_system_role(), "{name}");
        let text = template.render(&turns).unwrap();
        assert!(["be brief", "hi", "yes", "why"].iter().all(|part| text.contains(part)), "{name}: {text}");
    }
    assert!(ChatTemplate::builtin("nonesuch").is_none());
    assert!(!ChatTemplate::from_source("{{ messages[1].content }}").unwrap().has_system_role());
}
