//! Models of families that the program does not know: what it says, and what a description changes.

use crate::support::{Home, fixture, llama};
use std::path::Path;

/// Tokens of a greedy continuation.
#[track_caller]
fn continued(home: &Home, model: &Path, more: &[&str]) -> Vec<serde_json::Value> {
    let model = model.to_str().unwrap();
    let mut arguments = vec!["--model", model, "-p", "Once upon a time", "--raw", "--temperature", "0", "-n", "6"];
    arguments.extend(["--threads", "2", "--output", "json", "--precision", "f32"]);
    arguments.extend(more);
    home.run(&arguments).ends_with(0).json()["token_ids"].as_array().unwrap().clone()
}

/// The Hugging Face folder of the small model with another `model_type`.
fn renamed_folder(home: &Home) -> std::path::PathBuf {
    let from = fixture("archs/llama/hf").expect("fixtures/archs/llama is part of the repository");
    let to = home.path().join("folder");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let name = entry.unwrap().file_name();
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    let config = std::fs::read_to_string(to.join("config.json")).unwrap();
    let changed = config.replace("\"llama\"", "\"llamb\"");
    assert_ne!(config, changed);
    std::fs::write(to.join("config.json"), changed).unwrap();
    to
}

/// Replaces every `from` by an equally long `to`.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len());
    let at: Vec<usize> = bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(i, _)| i).collect();
    at.iter().for_each(|i| bytes[*i..*i + to.len()].copy_from_slice(to));
    at.len()
}

/// The GGUF file of the small model under another name of its family.
fn renamed_file(home: &Home) -> std::path::PathBuf {
    let mut bytes = std::fs::read(llama()).unwrap();
    let value = |name: &str| {
        let header = [8u32.to_le_bytes().as_slice(), &5u64.to_le_bytes()].concat();
        [b"general.architecture".as_slice(), &header, name.as_bytes()].concat()
    };
    assert_eq!(replace(&mut bytes, &value("llama"), &value("llamb")), 1);
    assert!(replace(&mut bytes, b"llama.", b"llamb.") > 5);
    let to = home.path().join("file.gguf");
    std::fs::write(&to, bytes).unwrap();
    to
}

#[test]
fn an_unknown_family_ends_with_exit_3_and_says_what_to_do() {
    let home = Home::new();
    for model in [renamed_folder(&home), renamed_file(&home)] {
        for (language, expected) in [
            ("en", ["llamb", "is not supported", "close to it is llama", "--arch FILE"]),
            ("ja", ["llamb", "には未対応です", "近い名前: llama", "--arch FILE"]),
        ] {
            let arguments = ["--model", model.to_str().unwrap(), "-p", "a", "--raw", "--language", language];
            let ran = home.run(&arguments).ends_with(3);
            assert!(expected.iter().all(|words| ran.err.contains(words)), "{}", ran.err);
            assert!(ran.out.is_empty());
        }
    }
}

#[test]
fn a_description_makes_a_family_known() {
    let home = Home::new();
    let arch = home.file("arch.toml", "name = \"llamb\"\nbase = \"llama\"\nmodel_types = [\"llamb\"]\n");
    let with = ["--arch", arch.to_str().unwrap()];
    let folder = fixture("archs/llama/hf").unwrap();
    assert_eq!(continued(&home, &renamed_folder(&home), &with), continued(&home, &folder, &[]));
    assert_eq!(continued(&home, &renamed_file(&home), &with), continued(&home, &llama(), &[]));
}

#[test]
fn descriptions_that_cannot_be_used() {
    let home = Home::new();
    let model = llama();
    for (text, expected) in [
        ("name = \"x\"\nbase = \"no_such_family\"\n", "no_such_family"),
        ("name = \"x\"\nnorms = \"sideways\"\n", "norms"),
        ("name = \"x\"\nno_such_key = 1\n", "no_such_key"),
        ("base = \"llama\"\n", "name"),
        ("= nonsense", "arch.toml"),
    ] {
        let arch = home.file("arch.toml", text);
        let arguments = ["--model", model.to_str().unwrap(), "--arch", arch.to_str().unwrap(), "-p", "a", "--raw"];
        let ran = home.run(&arguments).ends_with(2);
        assert!(ran.err.contains(expected), "{text}: {}", ran.err);
    }
    let missing = home.path().join("none.toml");
    let arguments = ["--model", model.to_str().unwrap(), "--arch", missing.to_str().unwrap(), "-p", "a", "--raw"];
    home.run(&arguments).ends_with(2);
}

/// The commonest failures, in Japanese down to the cause.
#[test]
fn causes_in_japanese() {
    let home = Home::new();
    let whole = std::fs::read(llama()).unwrap();
    let cut = home.path().join("cut.gguf");
    std::fs::write(&cut, &whole[..whole.len() - 1000]).unwrap();
    let cut = cut.to_str().unwrap();
    let model = llama();
    let model = model.to_str().unwrap();
    let template = home.file("wrong.jinja", "{% for %}");
    for (arguments, code, expected) in [
        (vec!["--model", "none.gguf"], 3, "ファイルまたはフォルダがありません"),
        (vec!["--model", cut], 3, "途中で切れています"),
        (vec!["--model", model, "--template", template.to_str().unwrap()], 2, "行目: 文法の誤り"),
    ] {
        let arguments = [arguments, vec!["-p", "a", "--language", "ja"]].concat();
        let ran = home.run(&arguments).ends_with(code);
        let cause = ran.err.lines().find(|line| line.starts_with("原因"));
        assert!(cause.is_some_and(|line| line.contains(expected)), "{}", ran.err);
    }
}
