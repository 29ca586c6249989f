//! Damaged and hostile vocabularies: a tokenizer that works, or one error that names the key.

use checkpoint::{Checkpoint, OpenOptions};
use text::{ChatTemplate, EncodeOptions, Tokenizer};

/// A metadata value as GGUF writes it: the number of its type, and its bytes.
struct Value(u32, Vec<u8>);

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn text(text: &str) -> Value {
    Value(8, string(text.as_bytes()))
}

fn number(n: u32) -> Value {
    Value(4, n.to_le_bytes().to_vec())
}

fn array(element: u32, items: impl ExactSizeIterator<Item = Vec<u8>>) -> Value {
    let mut bytes = element.to_le_bytes().to_vec();
    bytes.extend((items.len() as u64).to_le_bytes());
    bytes.extend(items.flatten());
    Value(9, bytes)
}

fn strings(items: &[&[u8]]) -> Value {
    array(8, items.iter().map(|item| string(item)))
}

fn floats(items: &[f32]) -> Value {
    array(6, items.iter().map(|item| item.to_le_bytes().to_vec()))
}

fn kinds(items: &[i32]) -> Value {
    array(5, items.iter().map(|item| item.to_le_bytes().to_vec()))
}

const TOKENS: [&[u8]; 7] = [b"a", b"b", b"ab", b"ba", b"aba", b"bab", b"c"];

/// Keys and their new values.
type Changes<'k> = Vec<(&'k str, Option<Value>)>;

/// The checkpoint of a small BPE vocabulary with `changes` on top; an empty change removes the key.
fn checkpoint(changes: Changes) -> Checkpoint {
    let mut pairs = vec![
        ("general.architecture", text("llama")),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", strings(&TOKENS)),
        ("tokenizer.ggml.merges", strings(&[b"a b"])),
    ];
    for (key, value) in changes {
        pairs.retain(|pair| pair.0 != key);
        pairs.extend(value.map(|value| (key, value)));
    }
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((pairs.len() as u64).to_le_bytes());
    for (key, Value(kind, value)) in pairs {
        bytes.extend(string(key.as_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Checkpoint::open(file.path(), &OpenOptions { mmap: false, ..OpenOptions::default() }).unwrap()
}

#[test]
fn damaged_vocabularies_are_refused_by_key() {
    const MODEL: &str = "tokenizer.ggml.model";
    const TOKENS: &str = "tokenizer.ggml.tokens";
    const MERGES: &str = "tokenizer.ggml.merges";
    const SCORES: &str = "tokenizer.ggml.scores";
    const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
    const BOS: &str = "tokenizer.ggml.bos_token_id";
    let rows: Vec<(Changes, &[&str])> = vec![
        (vec![(MODEL, None)], &[MODEL]),
        (vec![(MODEL, Some(text("nonesuch")))], &[MODEL, "nonesuch", "gpt2"]),
        (vec![(MODEL, Some(number(1)))], &[MODEL]),
        (vec![("tokenizer.ggml.pre", Some(text("nonesuch")))], &["tokenizer.ggml.pre", "nonesuch", "qwen2"]),
        (vec![(TOKENS, None)], &[TOKENS]),
        (vec![(TOKENS, Some(strings(&[])))], &[TOKENS]),
        (vec![(TOKENS, Some(floats(&[1.0])))], &[TOKENS]),
        (vec![(MERGES, None)], &[MERGES]),
        (vec![(MERGES, Some(text("a b")))], &[MERGES]),
        (vec![(TOKEN_TYPE, Some(kinds(&[1, 1])))], &[TOKEN_TYPE, "2", "7"]),
        (vec![(TOKEN_TYPE, Some(text("x")))], &[TOKEN_TYPE]),
        (vec![(MODEL, Some(text("llama"))), (SCORES, Some(floats(&[0.0, 0.0])))], &[SCORES, "2", "7"]),
        (vec![(BOS, Some(number(1_000_000)))], &[BOS, "1000000", "7"]),
        (vec![("tokenizer.ggml.eot_token_id", Some(number(7)))], &["tokenizer.ggml.eot_token_id"]),
        (vec![("tokenizer.ggml.add_bos_token", Some(number(1)))], &["tokenizer.ggml.add_bos_token"]),
    ];
    for (changes, expected) in rows {
        let error = Tokenizer::from_checkpoint(&checkpoint(changes)).expect_err(expected[0]).to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error} has not {expected:?}");
    }
}

#[test]
fn odd_vocabularies_work() {
    let model = "tokenizer.ggml.model";
    let tokens = "tokenizer.ggml.tokens";
    let merges = "tokenizer.ggml.merges";
    let all = |kind: i32| Some(kinds(&[kind; 7]));
    let rows: Vec<Changes> = vec![
        vec![],
        vec![(merges, Some(strings(&[b"qq zz", b"a b"])))],
        vec![(merges, Some(strings(&[b"a b", b"ab a", b"aba b", b"b a", b"ba b", b"bab a"])))],
        vec![(merges, Some(strings(&[b"ab", b"", b" ", b"  a", b"a ", b"\xff\xfe \xff"])))],
        vec![(merges, Some(strings(&[])))],
        vec![(tokens, Some(strings(&[b"a", b"a", b"", b"", b"\xff\xc0", b"\x1b]52;c;\x07", "\u{202e}".as_bytes()])))],
        vec![("tokenizer.ggml.token_type", all(3))],
        vec![("tokenizer.ggml.token_type", all(99))],
        vec![("tokenizer.ggml.bos_token_id", Some(number(u32::MAX)))],
        vec![("tokenizer.ggml.pre", None)],
        vec![(model, Some(text("llama")))],
        vec![(model, Some(text("llama"))), ("tokenizer.ggml.scores", Some(floats(&[f32::NAN; 7])))],
        vec![(model, Some(text("llama"))), ("tokenizer.ggml.token_type", all(6))],
        vec![(model, Some(text("t5"))), ("tokenizer.ggml.scores", Some(floats(&[f32::NEG_INFINITY; 7])))],
        vec![(model, Some(text("t5"))), ("tokenizer.ggml.precompiled_charsmap", Some(kinds(&[9, 0, 0, 0, 1])))],
        vec![(model, Some(text("bert")))],
    ];
    for (row, changes) in rows.into_iter().enumerate() {
        let tokenizer = Tokenizer::from_checkpoint(&checkpoint(changes)).unwrap();
        for text in ["", "abab", "a b\nü\u{1f600}", "\u{fdd0}", "<s>\x1b\0"] {
            for special in [false, true] {
                let ids = tokenizer.encode(text, EncodeOptions { bos_eos: true, special });
                assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_vocab()), "row {row}");
                tokenizer.decode(&ids);
            }
            tokenizer.encode_rendered(&tokenizer.protect(text));
        }
    }
}

#[test]
fn templates_come_from_the_checkpoint() {
    let key = "tokenizer.chat_template";
    let found = |value: Option<Value>| ChatTemplate::from_checkpoint(&checkpoint(vec![(key, value)]));
    assert!(found(None).unwrap().is_none());
    assert_eq!(found(Some(text("a{{ bos_token }}"))).unwrap().unwrap().source(), "a{{ bos_token }}");
    let named = checkpoint(vec![("tokenizer.chat_template.tool_use", Some(text("t"))), (key, Some(text("d")))]);
    assert_eq!(ChatTemplate::named_in(&named).unwrap(), [("tool_use".to_owned(), "t".to_owned())]);
    for bad in [number(1), Value(8, string(b"{{ messages }}\xff\xfe")), text("{% for m in messages %}{{ m.content")] {
        assert!(found(Some(bad)).unwrap_err().to_string().contains("template"));
    }
}

/// SentencePiece's spelling with the order of merges: the first merges first, and what no merge makes is never made.
#[test]
fn merges_in_place_of_scores() {
    const TOKENS: [&[u8]; 9] = [b"<unk>", b"a", b"b", b"c", b"ab", b"bc", b"abc", b"<0xC3>", "\u{2581}a".as_bytes()];
    let merges: [&[u8]; 3] = [b"b c", b"a b", b"\xe2\x96\x81 a"];
    let changes = vec![
        ("tokenizer.ggml.model", Some(text("gemma4"))),
        ("tokenizer.ggml.tokens", Some(strings(&TOKENS))),
        ("tokenizer.ggml.merges", Some(strings(&merges))),
        ("tokenizer.ggml.unknown_token_id", Some(number(0))),
    ];
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint(changes)).unwrap();
    let check =
        |text: &str, expected: &[u32]| assert_eq!(tokenizer.encode(text, EncodeOptions::default()), expected, "{text}");
    check("abc", &[1, 5]);
    check("ab", &[4]);
    check("b abc", &[2, 8, 5]);
    check("aba", &[4, 1]);
    check("x", &[0]);
}

/// A vocabulary of 1200 tokens in this form, against llama.cpp's tokens.
#[test]
fn merges_in_place_of_scores_against_the_reference() {
    let Some(folder) = crate::fixtures::find("vocabularies") else { return };
    let checkpoint = Checkpoint::open(&folder.join("by-merges.gguf"), &OpenOptions::default()).unwrap();
    let tokenizer = Tokenizer::from_checkpoint(&checkpoint).unwrap();
    let cases = crate::fixtures::json(&folder.join("by-merges.json"));
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> =
            case["ids"].as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect();
        let ids = tokenizer.encode(text, EncodeOptions::default());
        assert_eq!(ids, expected, "{text:?}");
        assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "{text:?}");
    }
}
